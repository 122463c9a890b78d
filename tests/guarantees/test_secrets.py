"""Errors and logs contain no secret key, password or prompt."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import anyio
import anyio.abc
import pytest
from support.http_libraries import EACH_LIBRARY
from support.response_bytes import answer
from support.servers import Handler, Peer, black_hole, closing, serving

import gprochat_anyio
from gprochat_anyio import (
    Client,
    GPROChat,
    GPROChatError,
    InsecureSiteWarning,
    Retry,
    Timeouts,
    fan_out,
    gather,
    race,
)
from gprochat_anyio.site import ModelError, Turn, serve
from gprochat_anyio.testing import (
    Drop,
    Hang,
    Raw,
    Refuse,
    Reply,
    Say,
    at_every_checkpoint,
    live_site,
)

KEY, PASSWORD, PROMPT = "canary-of-the-key", "canary-of-the-password", "canary-of-the-prompt"
CANARIES = (KEY, PASSWORD, PROMPT)
SECRETS: dict[str, Any] = {"secret_key": KEY, "password": PASSWORD}

NOT_FOUND = answer(404, b"<html>", {})
FAILURES: dict[str, Reply] = {
    "refused": Drop(reset=True),
    "unauthorised": Refuse(401, "Invalid password."),
    "html": Raw(answer(200, b"<html>", {"Content-Type": "text/html"})),
    "garbage": Raw(b"SSH-2.0-x\r\n"),
    "first_chunk": Hang(),
    "interrupted before": [Say(""), Drop()],
    "interrupted after": [Say("a"), Drop()],
    "idle": [Say("a"), Hang()],
    "blank": Hang(),
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
    elif way == "gather":
        await gather(client, [prompt], on_error="raise")
    elif way == "fan_out":
        async with fan_out(client, [prompt]) as events:
            async for event in events:
                if isinstance(event, gprochat_anyio.Failed):
                    raise event.error
    elif way == "race":
        async with race([client], prompt) as chunks:
            await chunks.read()
    else:
        settings: dict[str, Any] = {**SECRETS, "timeouts": Timeouts(first_chunk=0.05, idle=0.05)}
        messages = [{"role": "user", "content": prompt}]
        url = client.url
        async for _ in GPROChat.create_async_generator("", messages, url=url, **settings):
            pass


def frames_of_the_library(error: BaseException) -> str:
    """Return the local variables of the traceback and its chain, except those of this test."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    link: traceback.TracebackException | None = shown
    while link is not None:
        link.stack = traceback.StackSummary.from_list(
            [frame for frame in link.stack if "/tests/" not in frame.filename]
        )
        link = link.__cause__ or link.__context__
    return "".join(shown.format())


def assert_clean(*texts: str) -> None:
    for canary in CANARIES:
        assert not [text for text in texts if canary in text]


@pytest.mark.usefixtures("short_backoff")  # the provider's retries are the default
@pytest.mark.parametrize(
    "way", ["ask", "stream", "stream_to", "provider", "gather", "fan_out", "race"]
)
@pytest.mark.parametrize("failure", FAILURES)
async def test_errors_and_logs_hold_no_secret(
    failure: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    prompt = PROMPT if failure != "blank" else f"{PROMPT}\ud83d"
    limits = Timeouts(first_chunk=0.05, idle=0.05)
    retry = Retry(attempts=2, backoff=0)
    with caplog.at_level(logging.DEBUG):
        async with live_site(FAILURES[failure], **SECRETS) as site:
            async with site.client(timeouts=limits, retry=retry) as client:
                with pytest.raises(GPROChatError) as caught:
                    await fail(client, way, prompt)
                shown = [repr(client), str(client), str(vars(caught.value))]
    failed = caught.value
    shown += [str(failed), repr(failed), frames_of_the_library(failed)]
    shown += [pickle.dumps(failed).decode("latin-1"), caplog.text]
    assert_clean(*shown, *getattr(failed, "__notes__", []))
    assert failed.__cause__ is None
    assert failed.__context__ is None


async def resetting(peer: Peer) -> None:
    await peer.request()
    peer.reset()


@pytest.mark.parametrize("handler", [resetting, black_hole, closing(NOT_FOUND)])
async def test_a_password_check_that_fails(handler: Handler, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(handler) as site:
        async with Client(site.url, **SECRETS, timeouts=Timeouts(first_chunk=0.05)) as client:
            with pytest.raises(GPROChatError) as caught:
                await client.check_password()
    assert_clean(frames_of_the_library(caught.value), repr(caught.value), caplog.text)
    assert_clean(pickle.dumps(caught.value).decode("latin-1"))


@EACH_LIBRARY
@pytest.mark.parametrize("script", [Drop(reset=True), Raw(NOT_FOUND), "ok"])
async def test_another_transport(library: Any, script: Reply, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    async with live_site(script, **SECRETS) as site:
        transport = library.AsyncHTTPTransport()
        async with site.client(transport=transport, retry=Retry(attempts=1)) as client:
            failed: GPROChatError | None = None
            try:
                await client.ask(PROMPT)
            except GPROChatError as refused:
                failed = refused
    if failed is not None:
        assert_clean(frames_of_the_library(failed), repr(failed))
        assert failed.__cause__ is failed.__context__ is None
    assert "http" in caplog.text  # the library's logger was captured
    assert_clean(caplog.text)


@pytest.mark.parametrize("size", [0, 10_000_000])
@pytest.mark.parametrize("way", ["ask", "stream", "stream_to", "gather", "provider"])
async def test_a_cancellation_holds_no_secret(way: str, size: int) -> None:
    """`asyncio.timeout` chains it, so the caller sees its traceback."""
    prompt = PROMPT + " " * size
    cancelled: list[BaseException] = []

    async def listen(stream: Any) -> None:  # never reads: the request is stuck on its way
        async with stream:
            await anyio.sleep_forever()

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as tg:
            tg.start_soon(listener.serve, listen)
            async with Client(f"http://127.0.0.1:{port}", **SECRETS) as client:
                with anyio.move_on_after(0.03):
                    try:
                        await fail(client, way, prompt)
                    except BaseException as error:
                        cancelled.append(error)
                        raise
            tg.cancel_scope.cancel()
    assert cancelled
    shown = frames_of_the_library(cancelled[0])
    assert way == "provider" or "gprochat_anyio" in shown
    assert_clean(shown)


@pytest.mark.parametrize(
    "make", [Client, Client.from_env, partial(GPROChat.create_async_generator, "", [])]
)
@pytest.mark.parametrize(
    "bad",
    [
        {"url": f"http://user:{PASSWORD}@host"},
        {"url": "host"},
        {"proxy": f"gopher://user:{PASSWORD}@host"},
        {"secret_key": [KEY]},
        {"password": [PASSWORD]},
        {"timeouts": 1},
        {"url": "http://host"},  # a warning, raised as an error
    ],
)
def test_an_invalid_setting(make: Any, bad: dict[str, Any]) -> None:
    with pytest.raises((ValueError, InsecureSiteWarning)) as caught:
        make(**{"url": "https://host", **SECRETS, **bad})
    assert_clean(repr(caught.value), frames_of_the_library(caught.value))
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("kind", [ModelError, ValueError])
async def test_logs_of_the_site(before: int, kind: type[Exception], caplog: Any) -> None:
    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        for _ in range(before):
            yield "a"
        raise kind(f"cannot answer {turns[-1].text}")

    caplog.set_level(logging.DEBUG)
    site = partial(serve, model, secret_key=KEY, passwords=[PASSWORD])
    async with anyio.create_task_group() as tg:
        url: str = await tg.start(site)
        for password in (PASSWORD, f"{PASSWORD}x"):
            async with Client(url, secret_key=KEY, password=password) as client:
                with pytest.raises(GPROChatError):
                    await client.ask(PROMPT)
                await client.check_password()
        tg.cancel_scope.cancel()
    assert_clean(caplog.text)


@pytest.mark.parametrize("way", ["ask", "stream", "check_password"])
async def test_a_cancellation_anywhere_holds_no_secret(way: str) -> None:
    cancelled: list[BaseException] = []

    async def once() -> None:
        try:
            async with Client(site.url, **SECRETS) as client:
                await (
                    client.check_password()
                    if way == "check_password"
                    else fail(client, way, PROMPT)
                )
        except BaseException as error:
            cancelled.append(error)
            raise

    async with live_site("ok", **SECRETS) as site:
        for cancel in at_every_checkpoint():
            await cancel(once)
    assert len(cancelled) >= 3
    assert_clean(*map(frames_of_the_library, cancelled))


async def test_a_cancellation_holds_neither_header_fields_nor_proxy_credentials() -> None:
    cancelled: list[BaseException] = []

    async def once() -> None:
        try:
            async with Client(
                "http://site.test",
                proxy=site.url.replace("//", f"//user:{PASSWORD}@"),
                headers={"Authorization": f"Bearer {KEY}"},
            ) as client:
                await client.ask(PROMPT)
        except BaseException as error:
            cancelled.append(error)
            raise

    async with live_site("ok") as site:
        for cancel in at_every_checkpoint():
            await cancel(once)
        assert KEY in site.requests[0].headers["authorization"]
        assert "proxy-authorization" in site.requests[0].headers
    shown = [frames_of_the_library(error) for error in cancelled]
    assert any("NativeSender" in text for text in shown)  # includes the frames that send
    assert_clean(*shown)
    assert not any("Proxy-Authorization" in text for text in shown)
