"""Streams within the callers' structures: asyncio's and Trio's own, and guest mode."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint
from support.loops import LOOPS

from gprochat_anyio import Client, ReplyStream, RequestTimeoutError, Timeouts
from gprochat_anyio.testing import Hang, Request, Say, Script, ScriptedSite, live_site

OPEN_ENDED: Script = [Say("text"), Hang()]

ON_ASYNCIO = pytest.mark.parametrize(
    "anyio_backend", [loop for loop in LOOPS if loop.id != "trio"], indirect=True
)
ON_TRIO = pytest.mark.parametrize(
    "anyio_backend", [loop for loop in LOOPS if loop.id == "trio"], indirect=True
)


async def all_closed(site: ScriptedSite) -> None:
    """Wait until the site has seen every connection close."""
    with anyio.fail_after(5, shield=True):
        await site.until(lambda: not site.open_connections)


# asyncio


@ON_ASYNCIO
async def test_asyncio_timeout_around_a_stream() -> None:
    async with live_site(OPEN_ENDED) as site, site.client(max_connections=1) as client:
        for _ in range(2):
            chunks = client.stream("hi")
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(None) as timeout, chunks:
                    assert await chunks.receive() == "text"
                    timeout.reschedule(asyncio.get_running_loop().time() + 0.01)
                    await chunks.read()
            assert type(caught.value) is TimeoutError
            assert chunks.text == "text"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.03):
                await client.ask("hi")
        await all_closed(site)


@ON_ASYNCIO
async def test_asyncio_timeout_within_a_stream() -> None:
    """It ends the wait. The stream continues, and no text is lost."""
    more = anyio.Event()
    async with live_site([Say("one"), more.wait, Say("two")]) as site, site.client() as client:
        async with client.stream("hi") as chunks:
            assert await chunks.receive() == "one"
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await chunks.receive()
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(chunks.receive(), 0.01)
            more.set()
            async with asyncio.timeout(5):
                assert await chunks.read() == "two"


@ON_ASYNCIO
async def test_a_native_cancellation_in_the_turn_of_an_arrival_loses_nothing() -> None:
    gates = [anyio.Event() for _ in range(10)]
    script = [step for n, gate in enumerate(gates) for step in (Say(f"{n}"), gate.wait)]
    async with live_site(script) as site, site.client() as client:
        async with client.stream("hi") as chunks, asyncio.timeout(5):
            assert await chunks.receive() == "0"
            for number, gate in enumerate(gates[:-1], 1):
                task = asyncio.create_task(chunks.receive())
                while not chunks.statistics().tasks_waiting_receive:
                    await checkpoint()
                gate.set()
                while chunks.timing.chunks == number:
                    await checkpoint()
                task.cancel()
                (got,) = await asyncio.gather(task, return_exceptions=True)
                if isinstance(got, asyncio.CancelledError):
                    got = await chunks.receive()
                assert got == f"{number}"


@ON_ASYNCIO
async def test_an_asyncio_task_group_that_fails() -> None:
    """The other tasks' connections are closed, and only the caller's exception is raised."""
    mine = ValueError("mine")
    async with live_site(OPEN_ENDED) as site, site.client() as client:
        receiving = 0

        async def read() -> None:
            nonlocal receiving
            async with client.stream("hi") as chunks:
                await chunks.receive()
                receiving += 1
                await chunks.receive()

        async def fail() -> None:
            while receiving < 5:
                await checkpoint()
            raise mine

        with pytest.raises(BaseExceptionGroup) as caught:
            async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
                for _ in range(5):
                    tasks.create_task(read())
                tasks.create_task(fail())
        assert caught.value.exceptions == (mine,)
        await all_closed(site)


@ON_ASYNCIO
async def test_a_stream_is_passed_to_the_tasks_of_an_asyncio_task_group() -> None:
    async with live_site(lambda request: request.prompt) as site, site.client() as client:
        texts: list[str] = []

        async def read_and_leave(chunks: ReplyStream) -> None:
            texts.append(await chunks.read())
            await chunks.__aexit__(None, None, None)

        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            for number in range(5):
                chunks = await client.stream(f"{number}").__aenter__()
                tasks.create_task(read_and_leave(chunks))
        assert sorted(texts) == ["0", "1", "2", "3", "4"]


# Trio


@ON_TRIO
async def test_trio_fail_after_around_a_stream() -> None:
    async with live_site(OPEN_ENDED) as site, site.client(max_connections=1) as client:
        for _ in range(2):
            chunks = client.stream("hi")
            with pytest.raises(trio.TooSlowError):
                with trio.fail_after(5) as scope:
                    async with chunks:
                        assert await chunks.receive() == "text"
                        scope.deadline = trio.current_time() + 0.01
                        await chunks.read()
            assert chunks.text == "text"
        with trio.move_on_after(0.03) as scope:
            await client.ask("hi")
        assert scope.cancelled_caught
        await all_closed(site)


@ON_TRIO
async def test_trio_move_on_after_within_a_stream() -> None:
    more = anyio.Event()
    async with live_site([Say("one"), more.wait, Say("two")]) as site, site.client() as client:
        async with client.stream("hi") as chunks:
            assert await chunks.receive() == "one"
            for _ in range(3):
                with trio.move_on_after(0.01) as scope:
                    await chunks.receive()
                assert scope.cancelled_caught
            more.set()
            assert await chunks.read() == "two"


@ON_TRIO
async def test_a_trio_nursery_that_ends_before_its_streams() -> None:
    """Streams that its tasks have entered outlive it, and are closed individually."""
    async with live_site(OPEN_ENDED) as site, site.client() as client:
        async with AsyncExitStack() as stack:
            streams: list[ReplyStream] = []

            async def enter() -> None:
                streams.append(await stack.enter_async_context(client.stream("hi")))

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(enter)
            for chunks in streams:
                assert await chunks.receive() == "text"
            assert site.open_connections == 3
        await all_closed(site)


def run_as_guest_of_asyncio(main: Callable[[], Any]) -> None:
    """Run Trio within an asyncio event loop, and check that the loop stays responsive."""

    async def host() -> None:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Any] = loop.create_future()
        trio.lowlevel.start_guest_run(
            main,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=ended.set_result,
        )
        turns = 0
        while not ended.done():
            turns += 1
            await asyncio.sleep(0.001)
        (await ended).unwrap()
        assert turns > 1

    asyncio.run(host())


def test_in_guest_mode() -> None:
    """Replies, backpressure, deadlines and closing, in a guest of asyncio's loop."""

    async def main() -> None:
        def reply(request: Request) -> Script:
            return OPEN_ENDED if request.prompt == "open" else request.prompt

        with trio.fail_after(10):
            async with live_site(reply) as site, site.client(max_connections=2) as client:
                assert (await client.ask("one")).text == "one"
                async with client.stream("x" * 300_000) as chunks:
                    assert await chunks.receive()
                    assert len(chunks.text + await chunks.read()) == 300_000
                limits = Timeouts(idle=0.3)
                async with client.stream("open", timeouts=limits) as chunks:
                    assert await chunks.receive() == "text"
                    with pytest.raises(RequestTimeoutError):
                        await chunks.receive()
                async with client.stream("open") as first, client.stream("open") as second:
                    await first.aclose()
                    second.stop()
                    assert await second.read() == ""
                with trio.move_on_after(0.03) as scope:
                    await client.ask("open")
                assert scope.cancelled_caught
                assert (await client.ask("two")).text == "two"

    run_as_guest_of_asyncio(main)


def test_a_client_belongs_to_the_guest_and_not_to_its_host() -> None:
    client = Client("http://127.0.0.1:9", trust_env=False)

    async def main() -> None:
        async with live_site("text") as site:
            async with site.client() as other:
                assert (await other.ask("hi")).text == "text"
        with pytest.raises(RuntimeError, match="another event loop"):
            await client.ask("hi")

    async def first_use() -> None:
        await client.__aenter__()

    asyncio.run(first_use())
    run_as_guest_of_asyncio(main)
