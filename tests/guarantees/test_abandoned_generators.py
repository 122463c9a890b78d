"""Async generators around a stream that are abandoned, and finalized by the garbage collector."""

from __future__ import annotations

import gc
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.servers import open_sockets

from gprochat_anyio import Client, GPROChat
from gprochat_anyio.testing import Hang, Request, Say, Script, ScriptedSite, live_site, no_leaks

HELLO = [{"role": "user", "content": "text"}]

Generator = AsyncGenerator[str, None]
Make = Callable[[Client], Generator]


async def plain(client: Client) -> Generator:
    async with client.stream("text") as chunks:
        async for piece in chunks:
            yield piece


async def nested(client: Client) -> Generator:
    async for piece in plain(client):
        yield piece


async def in_a_scope(client: Client) -> Generator:
    """Many applications keep a scope open across a `yield`, although they should not."""
    async with client.stream("text") as first, client.stream("text") as chunks:
        first.stop()
        async for piece in chunks:
            yield piece


GENERATORS = pytest.mark.parametrize("make", [plain, nested, in_a_scope])


@asynccontextmanager
async def asking(**settings: Any) -> AsyncIterator[tuple[Client, ScriptedSite]]:
    """Yield a client, and its site: a reply is one piece, the prompt, and does not end."""

    def reply(request: Request) -> Script:
        return "whole" if request.prompt == "whole" else [Say(request.prompt), Hang()]

    with anyio.fail_after(10):
        async with live_site(reply) as site, site.client(**settings) as client:
            yield client, site


@contextmanager
def resource_warnings() -> Iterator[list[str]]:
    """Collect the warnings of the block. All must be ResourceWarnings."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    found += [str(warning.message) for warning in caught]
    assert {warning.category for warning in caught} <= {ResourceWarning}


async def all_closed(site: ScriptedSite) -> None:
    """Wait until the site has seen every connection close."""
    await site.until(lambda: not site.open_connections)
    for _ in range(3):  # the finalizer's own task ends slightly later
        await checkpoint()


async def abandon(generator: Generator) -> None:
    """Receive one piece, and abandon the generator."""
    async for piece in generator:
        assert piece == "text"
        break


@pytest.mark.slow
@GENERATORS
async def test_an_abandoned_generator(make: Make, anyio_backend_name: str) -> None:
    """asyncio does not warn. Trio warns once for each generator."""
    async with asking(max_connections=2) as (client, site):
        async with no_leaks(client, grace=1):
            with resource_warnings() as warned:
                await abandon(make(client))
                gc.collect()
                await all_closed(site)
        generators = 2 if make is nested else 1
        assert len(warned) == (generators if anyio_backend_name == "trio" else 0), warned
        assert not open_sockets(int(site.url.rpartition(":")[2]))
        async with anyio.create_task_group() as tasks:  # all slots are free
            tasks.start_soon(client.ask, "whole")
            async with client.stream("text"):
                pass


@pytest.mark.slow
@GENERATORS
async def test_many_abandoned_generators_at_once(make: Make) -> None:
    async with asking() as (client, site):
        async with no_leaks(client, grace=1):
            with resource_warnings():
                for _ in range(10):
                    await abandon(make(client))
                gc.collect()
                await all_closed(site)
        assert (await client.ask("whole")).text == "whole"


@pytest.mark.slow
async def test_an_abandoned_generator_in_a_reference_cycle(anyio_backend_name: str) -> None:
    """The collector may find the stream first, which then warns. Trio warns as well."""
    async with asking(max_connections=1) as (client, site):
        cycle: list[Any] = []

        async def pieces(_: list[Any]) -> Generator:
            async with client.stream("text") as chunks:
                async for piece in chunks:
                    yield piece

        cycle.append(pieces(cycle))
        assert await anext(cycle[0]) == "text"
        async with no_leaks(grace=1):
            with resource_warnings() as warned:
                del cycle
                gc.collect()
                await all_closed(site)
        ours = [text for text in warned if "ReplyStream" in text]
        assert len(ours) <= 1
        assert len(warned) - len(ours) == (anyio_backend_name == "trio")
        assert not open_sockets(int(site.url.rpartition(":")[2]))
        assert (await client.ask("whole")).text == "whole"


@pytest.mark.slow
async def test_a_generator_is_abandoned_by_a_task_that_has_ended() -> None:
    async with asking(max_connections=1) as (client, site):
        generators: list[Generator] = []

        async def begin() -> None:
            generators.append(plain(client))
            assert await anext(generators[0]) == "text"

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(begin)
        with resource_warnings():
            generators.clear()
            gc.collect()
            await all_closed(site)
        assert (await client.ask("whole")).text == "whole"


async def test_a_generator_is_closed_by_another_task() -> None:
    async with asking(max_connections=1) as (client, site):
        generator = plain(client)
        assert await anext(generator) == "text"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(generator.aclose)
        assert not open_sockets(int(site.url.rpartition(":")[2]))
        assert (await client.ask("whole")).text == "whole"


@pytest.mark.slow
async def test_an_abandoned_stream_without_a_generator() -> None:
    """One warning says what to do. The event loop closes the connection in its next turn."""
    async with asking(max_connections=1) as (client, site):
        async with no_leaks(client, grace=1):
            chunks = await client.stream("text").__aenter__()
            assert await chunks.receive() == "text"
            with resource_warnings() as warned:
                del chunks
                gc.collect()
                for _ in range(3):
                    await checkpoint()
                assert not open_sockets(int(site.url.rpartition(":")[2]))
                await all_closed(site)
        assert len(warned) == 1
        assert "async with client.stream" in warned[0]
        assert (await client.ask("whole")).text == "whole"


@pytest.mark.slow
async def test_an_abandoned_stream_whose_reply_has_ended() -> None:
    """Nothing is left to close, and nothing to warn of."""
    async with asking() as (client, _):
        with resource_warnings() as warned:
            chunks = await client.stream("whole").__aenter__()
            assert await chunks.read() == "whole"
            del chunks
            gc.collect()
        assert not warned


@pytest.mark.slow
async def test_an_abandoned_generator_of_the_original_interface() -> None:
    """Exactly one warning, on each event loop."""
    async with asking() as (_, site):
        async with no_leaks(grace=1):
            with resource_warnings() as warned:
                await abandon(GPROChat.create_async_generator("", HELLO, url=site.url))
                gc.collect()
                await all_closed(site)
        assert len(warned) == 1, warned
        assert "aclosing" in warned[0]
        assert not open_sockets(int(site.url.rpartition(":")[2]))
