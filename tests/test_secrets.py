"""No secret key, password or prompt in what an error carries, or in any log."""

from __future__ import annotations

import logging
import pickle
import traceback
from typing import Any

import anyio
import pytest
from scripted import HEAD, End, Script, answer, chunk, error, loopback_site

from gprochat_anyio import Client, GPROChat, GPROChatError, Retry, Timeouts

KEY, PASSWORD, PROMPT = "canary-of-the-key", "canary-of-the-password", "canary-of-the-prompt"

FAILURES: dict[str, Script] = {
    "refused": (End.RST,),
    "unauthorised": (error(401, "Invalid password."),),
    "html": (answer(200, b"<html>", Content_Type="text/html"),),
    "garbage": (b"SSH-2.0-x\r\n",),
    "first_chunk": (),
    "interrupted before": (HEAD, End.FIN),
    "interrupted after": (HEAD + chunk("a"), End.FIN),
    "idle": (HEAD + chunk("a"),),
    "blank": (),
}


async def fail(client: Client, way: str, prompt: str) -> None:
    if way == "ask":
        await client.ask(prompt)
    elif way == "stream":
        async with client.stream(prompt) as chunks:
            await chunks.read()
    elif way == "stream_to":
        send, receive = anyio.create_memory_object_stream[str](9)
        with receive:
            await client.stream_to(prompt, send)
    else:
        settings: dict[str, Any] = {"secret_key": KEY, "password": PASSWORD}
        settings["timeouts"] = Timeouts(first_chunk=0.05, idle=0.05)
        messages = [{"role": "user", "content": prompt}]
        url = client._address.url
        async for _ in GPROChat.create_async_generator("", messages, url=url, **settings):
            pass


def frames_of_the_library(error: BaseException) -> str:
    """The traceback with its locals, without the frames of this test."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    shown.stack = traceback.StackSummary.from_list(
        [frame for frame in shown.stack if "/tests/" not in frame.filename]
    )
    return "".join(shown.format())


@pytest.mark.parametrize("way", ["ask", "stream", "stream_to", "provider"])
@pytest.mark.parametrize("failure", FAILURES)
async def test_errors_and_logs_hold_no_secret(
    failure: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    prompt = PROMPT if failure != "blank" else f"{PROMPT}\ud83d"
    limits = Timeouts(first_chunk=0.05, idle=0.05)
    retry = Retry(attempts=2, backoff=0)
    with caplog.at_level(logging.DEBUG):
        async with loopback_site(FAILURES[failure]) as site:
            async with Client(
                site.url, secret_key=KEY, password=PASSWORD, timeouts=limits, retry=retry
            ) as client:
                with pytest.raises(GPROChatError) as caught:
                    await fail(client, way, prompt)
                shown = [repr(client), str(client), str(vars(caught.value))]
    failed = caught.value
    shown += [str(failed), repr(failed), frames_of_the_library(failed)]
    shown += [pickle.dumps(failed).decode("latin-1"), caplog.text]
    for canary in (KEY, PASSWORD, PROMPT):
        assert not [text for text in shown if canary in text]
    assert failed.__cause__ is None
    assert failed.__context__ is None
