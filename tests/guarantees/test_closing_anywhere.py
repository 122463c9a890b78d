"""Streams close wherever the call comes from: any task or callback, in any order, concurrently."""

from __future__ import annotations

import contextvars
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import permutations
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint, current_token
from support.blocked import all_tasks_blocked
from support.servers import open_sockets

from gprochat_anyio import Client, ReplyStream
from gprochat_anyio.testing import Hang, Request, Say, Script, ScriptedSite, live_site, no_leaks

Ending = Callable[[ReplyStream], Any]


@asynccontextmanager
async def asking(**settings: Any) -> AsyncIterator[tuple[Client, ScriptedSite]]:
    """Yield a client, and its site: a reply is one piece, the prompt, and does not end."""

    def reply(request: Request) -> Script:
        return "whole" if request.prompt == "whole" else [Say(request.prompt), Hang()]

    with anyio.fail_after(10):
        async with live_site(reply) as site, site.client(**settings) as client:
            yield client, site


def connections_to(site: ScriptedSite) -> int:
    """Return the number of open client sockets."""
    return open_sockets(int(site.url.rpartition(":")[2]))


async def all_closed(site: ScriptedSite) -> None:
    """Wait until the site has seen every connection close."""
    await site.until(lambda: not site.open_connections)


@pytest.mark.parametrize("order", [*permutations(range(3))], ids=str)
async def test_streams_of_one_task_are_left_in_any_order(order: tuple[int, ...]) -> None:
    async with asking() as (client, site):
        streams = [client.stream(f"{n}") for n in range(3)]
        for stream in streams:
            await stream.__aenter__()
        for left, number in enumerate(order, 1):
            await streams[number].__aexit__(None, None, None)
            assert connections_to(site) == 3 - left
            for other in order[left:]:
                if not streams[other].text:
                    assert await streams[other].receive() == f"{other}"
        await checkpoint()  # neither the task nor any of its scopes is cancelled
        assert (await client.ask("whole")).text == "whole"


async def test_the_outer_of_two_streams_ends_first() -> None:
    async with asking() as (client, site):
        outer, inner = AsyncExitStack(), AsyncExitStack()
        first = await outer.enter_async_context(client.stream("first"))
        second = await inner.enter_async_context(client.stream("second"))
        await outer.aclose()
        assert connections_to(site) == 1
        with pytest.raises(anyio.ClosedResourceError):
            await first.receive()
        assert await second.receive() == "second"
        await inner.aclose()
        await all_closed(site)


async def test_a_stream_is_left_by_another_task() -> None:
    async with asking(max_connections=1) as (client, site):
        chunks = await client.stream("text").__aenter__()
        assert await chunks.receive() == "text"
        async with no_leaks(client, grace=1), anyio.create_task_group() as tasks:
            tasks.start_soon(chunks.__aexit__, None, None, None)
        assert connections_to(site) == 0
        assert (await client.ask("whole")).text == "whole"  # uses the freed slot
        assert chunks.text == "text"


async def test_a_stream_is_entered_and_left_by_two_tasks_that_have_ended() -> None:
    """Frameworks may run setup and teardown in separate tasks."""
    async with asking(max_connections=1) as (client, site):
        chunks = client.stream("text")
        for step in (chunks.__aenter__, lambda: chunks.__aexit__(None, None, None)):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(step)
        assert connections_to(site) == 0
        assert (await client.ask("whole")).text == "whole"


async def test_leaving_twice() -> None:
    async with asking() as (client, site):
        async with client.stream("text") as chunks:
            await chunks.__aexit__(None, None, None)
            await chunks.aclose()
            chunks.stop()
        await all_closed(site)


@pytest.mark.parametrize("end", [ReplyStream.stop, ReplyStream.aclose], ids=["stop", "aclose"])
@pytest.mark.parametrize("receiving", [True, False])
async def test_another_task_ends_a_stream(end: Ending, *, receiving: bool) -> None:
    async with asking(max_connections=1) as (client, site):
        async with client.stream("text") as chunks:
            assert await chunks.receive() == "text"
            outcomes: list[str] = []

            async def receive() -> None:
                try:
                    await chunks.receive()
                except (anyio.EndOfStream, anyio.ClosedResourceError) as error:
                    outcomes.append(type(error).__name__)

            async with anyio.create_task_group() as tasks:
                if receiving:
                    tasks.start_soon(receive)
                    await all_tasks_blocked()
                ending = end(chunks)
                if ending is not None:
                    await ending
                assert connections_to(site) == 0
                if not receiving:
                    tasks.start_soon(receive)
            assert outcomes == ["EndOfStream" if end is ReplyStream.stop else "ClosedResourceError"]
            assert (await client.ask("whole")).text == "whole"  # within the block
            assert chunks.text == "text"


@pytest.mark.parametrize("receiving", [True, False])
async def test_a_callback_stops_a_stream(*, receiving: bool) -> None:
    """Like a signal handler's callback, it runs between two tasks, in an empty context."""
    async with asking(max_connections=1) as (client, site):
        async with client.stream("text") as chunks:
            assert await chunks.receive() == "text"
            open_then: list[int] = []
            called = anyio.Event()

            def stop() -> None:
                chunks.stop()
                open_then.append(connections_to(site))
                called.set()

            async def call_soon() -> None:
                await all_tasks_blocked()
                loop: Any = current_token().native_token
                if hasattr(loop, "call_soon"):
                    loop.call_soon(stop, context=contextvars.Context())
                else:
                    loop.run_sync_soon(stop)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call_soon)
                if not receiving:
                    await called.wait()
                assert await chunks.read() == ""
            assert open_then == [0]  # when `stop` had returned
            assert (await client.ask("whole")).text == "whole"


async def test_closing_is_complete_when_the_call_returns() -> None:
    """Even in a cancelled scope, and without a turn of the event loop."""
    async with asking(max_connections=1) as (client, site):
        for _ in range(3):
            with anyio.CancelScope() as scope:
                async with client.stream("text") as chunks:
                    scope.cancel()
            assert connections_to(site) == 0
            with anyio.CancelScope() as scope:
                chunks = await client.stream("text").__aenter__()
                scope.cancel()
                await chunks.aclose()
            assert scope.cancelled_caught
            assert connections_to(site) == 0
            async with client.stream("text") as chunks:
                chunks.stop()
                assert connections_to(site) == 0
        assert (await client.ask("whole")).text == "whole"


async def test_tasks_close_each_others_streams() -> None:
    """Each task closes another task's stream while that one receives."""
    async with asking() as (client, site):
        streams = [client.stream(f"{n}") for n in range(20)]
        endings: list[int] = []

        async def receive(number: int) -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await streams[number].receive()
            endings.append(number)
            await streams[(number + 7) % 20].__aexit__(None, None, None)

        for stream in streams:
            await stream.__aenter__()
            await stream.receive()
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(receive, number)
            await all_tasks_blocked()
            await streams[0].aclose()
        assert endings == [number * 7 % 20 for number in range(20)]
        assert connections_to(site) == 0
