"""Clients of llama.cpp's server, which is independent C++ code, over its real API.

`nox -s real_server` installs it. Its model is generated here, and counts to ten.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import anyio
import pytest

from gprochat_anyio import (
    AuthenticationError,
    Client,
    Conversation,
    ReplyInterruptedError,
    ReplyStream,
    SiteConnectionError,
    SiteError,
    Timeouts,
    Usage,
    gather,
)
from gprochat_anyio.site import serve

pytestmark = pytest.mark.slow

KEY = "a-made-up-key"
TO_TEN = " one two three four five six seven eight nine ten"
ENDLESS = {"ignore_eos": True}
"""Request fields for a reply that takes a minute."""

if find_spec("xllamacpp") is None:
    pytest.skip("xllamacpp is not installed: nox -s real_server", allow_module_level=True)


@contextmanager
def llama_cpp() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the server. Yield its address and its process."""
    script = Path(__file__).with_name("llama_cpp_server.py")
    with (
        TemporaryFile("w+", encoding="utf-8") as log,
        subprocess.Popen(  # noqa: S603 - our own code
            [sys.executable, str(script), KEY],
            env={**os.environ, "PYTHONSAFEPATH": ""},  # it imports modules beside it
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            encoding="utf-8",
        ) as process,
    ):
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            log.seek(0)
            assert address, log.read()
            yield f"{address}/v1", process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with llama_cpp() as (address, _):
        yield address


@asynccontextmanager
async def opened(
    url: str, *, api_key: str | None = KEY, fields: Mapping[str, Any] | None = None
) -> AsyncIterator[Client]:
    limits = Timeouts(total=20)  # a third of an endless reply's duration
    async with Client.openai(
        url, model="counting", api_key=api_key, fields=fields, timeouts=limits, trust_env=False
    ) as client:
        yield client


def tokens_of(prompt: str) -> int:
    """Return the number of tokens of a prompt: one at the beginning, and one for each byte."""
    return 1 + len(prompt.replace(" ", "\N{LOWER ONE EIGHTH BLOCK}").encode())


async def test_ask(url: str) -> None:
    async with opened(url) as client:
        reply = await client.ask("Hello")
    assert (reply.text, reply.finish_reason) == (TO_TEN, "stop")
    assert reply.usage == Usage(tokens_of("Hello\n"), 11)


async def test_stream_until_a_limit(url: str) -> None:
    async with opened(url, fields={"max_tokens": 3}) as client, client.stream("Hello") as chunks:
        assert await chunks.read() == " one two three"
        assert (chunks.finish_reason, chunks.usage) == ("length", Usage(tokens_of("Hello\n"), 3))


async def test_the_system_text_and_the_history(url: str) -> None:
    async with opened(url) as client:
        conversation = Conversation(client, system="Count!")
        await conversation.ask("Hello")
        reply = await conversation.ask("Again")
    assert reply.usage == Usage(tokens_of(f"Count!\nHello\n{TO_TEN}\nAgain\n"), 11)


async def leave(chunks: ReplyStream) -> None:
    del chunks


async def stop(chunks: ReplyStream) -> None:
    chunks.stop()


async def cancel(chunks: ReplyStream) -> None:
    with anyio.move_on_after(0.05) as scope:
        async for _ in chunks:
            pass
    assert scope.cancelled_caught


@pytest.mark.parametrize("end", [leave, stop, cancel])
async def test_leaving_frees_the_only_slot(url: str, end: Any) -> None:
    async with opened(url, fields=ENDLESS) as client:
        async with client.stream("Hello") as chunks:
            assert (await chunks.receive()).startswith(" one")
            await end(chunks)
        async with opened(url) as other:
            assert (await other.ask("Hello")).text == TO_TEN


async def test_many_prompts(url: str) -> None:
    async with opened(url) as client:
        outcomes = await gather(client, [f"Prompt {n}" for n in range(20)], max_at_once=8)
    assert {outcome.unwrap().text for outcome in outcomes} == {TO_TEN}


@pytest.mark.parametrize("key", ["another-key", None])
async def test_a_wrong_key(url: str, key: str | None) -> None:
    async with opened(url, api_key=key) as client:
        with pytest.raises(AuthenticationError) as caught:
            await client.ask("Hello")
    assert caught.value.status == 401


async def test_an_invalid_field(url: str) -> None:
    async with opened(url, fields={"max_tokens": "many"}) as client:
        with pytest.raises(SiteError, match="must be number, but is string") as caught:
            await client.ask("Hello")
    assert (caught.value.status, caught.value.code) == (400, "invalid_request_error")


async def test_a_prompt_that_is_too_long(url: str) -> None:
    async with opened(url) as client:
        with pytest.raises(SiteError, match="exceeds the available context size") as caught:
            await client.ask("Hello" * 20_000)
    assert (caught.value.status, caught.value.code) == (400, "exceed_context_size_error")


async def test_another_path(url: str) -> None:
    async with opened(f"{url}/elsewhere") as client:
        with pytest.raises(SiteError) as caught:
            await client.ask("Hello")
    assert (caught.value.status, caught.value.code) == (404, "not_found_error")


async def test_a_server_that_is_killed() -> None:
    said = ""
    with llama_cpp() as (url, process):
        async with opened(url, fields=ENDLESS) as client:
            with pytest.raises(ReplyInterruptedError) as caught:
                async with client.stream("Hello") as chunks:
                    async for text in chunks:
                        said += text
                        process.kill()
            assert caught.value.partial_text == said
            with pytest.raises(SiteConnectionError, match=url.split("/")[2]):
                await client.ask("Hello")


async def test_behind_a_site(url: str) -> None:
    async with opened(url) as model, anyio.create_task_group() as tg:
        site = await tg.start(serve, model)
        async with Client(site, trust_env=False) as client:
            assert (await client.ask("Hello")).text == TO_TEN
        async with Client.openai(f"{site}/v1", model="counting", trust_env=False) as client:
            reply = await client.ask("Hello")
            assert (reply.text, reply.finish_reason) == (TO_TEN, "stop")
            assert reply.usage == Usage(tokens_of("Hello\n"), 11)
        tg.cancel_scope.cancel()
