"""Refusals that teach a limiter nothing, slow transports, and discarded clients."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.blocked import all_tasks_blocked
from support.http_libraries import httpx
from support.loops import virtual

from gprochat_anyio import (
    Chunk,
    Client,
    Limiter,
    RateLimitError,
    Retry,
    as_completed,
    fan_out,
)
from gprochat_anyio._request.limiter import starts_of
from gprochat_anyio.testing import Hang, Refuse, Request, Say, Script, scripted_site


@virtual
async def test_beside_a_fan_out_a_refusal_counts_as_an_attempt() -> None:
    """The consumer's request may start although the site is full, and is refused like any other."""

    def answer(request: Request) -> Script:
        return Refuse(429, "full") if request.prompt == "and" else (Say("a"), Hang())

    limiter = Limiter(max_at_once=8)
    async with scripted_site(answer) as site:
        retry = Retry(attempts=3)
        async with site.client(limiter=limiter, retry=retry) as client:
            async with fan_out(client, ["1", "2"]) as events:
                for _ in range(2):
                    assert isinstance(await events.receive(), Chunk)
                with pytest.raises(RateLimitError):
                    await client.ask("and")
                asked = [request for request in site.requests if request.prompt == "and"]
                # the first refusal lowers the limit; the others wait as `Retry` says
                assert len(asked) == 4
                assert asked[-1].time - asked[1].time >= 0.25 + 0.5


class _SlowToClose(httpx.AsyncBaseTransport):
    """A transport that refuses, and whose responses never finish closing."""

    def __init__(self) -> None:
        self.is_closing = anyio.Event()

    async def handle_async_request(self, request: Any) -> Any:
        transport = self

        class Stream(httpx.AsyncByteStream):
            async def __aiter__(self) -> AsyncIterator[bytes]:
                yield b"no"

            async def aclose(self) -> None:
                transport.is_closing.set()
                await anyio.sleep_forever()

        return httpx.Response(429, headers={"content-length": "2"}, stream=Stream())


async def test_a_start_is_not_lost_to_a_transport_that_closes_slowly(
    anyio_backend_name: str,
) -> None:
    limiter, transport = Limiter(max_at_once=1), _SlowToClose()
    async with Client("http://site.test", transport=transport, limiter=limiter) as client:
        if anyio_backend_name == "asyncio":
            task = asyncio.ensure_future(client.ask("hi"))
            await transport.is_closing.wait()
            task.cancel()
            await asyncio.wait([task])
        else:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.ask, "hi")
                await transport.is_closing.wait()
                tasks.cancel_scope.cancel()
        assert limiter.statistics().running == 0


@pytest.mark.slow
@virtual
async def test_closing_a_fan_out_from_another_task_does_not_fail() -> None:
    """A reply that ends in the same turn has no receiver."""
    async with scripted_site("a") as site, site.client() as client:
        for turns in range(40):
            async with anyio.create_task_group() as tasks:
                async with as_completed(client, map(str, range(8)), max_at_once=4) as outcomes:
                    for _ in range(turns):
                        await checkpoint()
                    tasks.start_soon(outcomes.aclose)
                    await checkpoint()


@virtual
async def test_a_limiter_forgets_discarded_clients() -> None:
    limiter = Limiter(max_at_once=1)
    for _ in range(3):
        async with scripted_site("a") as site, site.client(limiter=limiter) as client:
            async with anyio.create_task_group() as tasks:
                for number in range(3):
                    tasks.start_soon(client.ask, str(number))
        del client, site
    gc.collect()
    assert len(starts_of(limiter).lanes) <= 1  # the last client's, whose names this frame may hold


@virtual
async def test_cancelled_requests_do_not_accumulate() -> None:
    limiter = Limiter(max_at_once=1)
    async with scripted_site([Say("a"), Hang()]) as site, site.client(limiter=limiter) as client:
        async with client.stream("hi"), anyio.create_task_group() as tasks:
            tasks.start_soon(client.ask, "waits")
            await all_tasks_blocked()
            for _ in range(300):
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await client.ask("leaves")
            (lane,) = starts_of(limiter).lanes.values()
            assert limiter.statistics().waiting == 1
            assert sum(map(len, (lane._free, lane._held_up))) < 150
            tasks.cancel_scope.cancel()


@virtual
async def test_an_open_stream_does_not_keep_another_request_from_probing() -> None:
    """The refusal lowers the limit to the caller's own stream, which ends after the request."""
    asked = 0

    def answer(request: Request) -> Script:
        nonlocal asked
        asked += request.prompt == "inner"
        return Refuse(429) if asked == 1 else (Say("a"), Hang()) if not asked else Say("b")

    async with scripted_site(answer) as site, site.client(limiter=Limiter()) as client:
        async with client.stream("outer") as chunks:
            assert await chunks.receive() == "a"
            began = anyio.current_time()
            assert (await client.ask("inner")).text == "b"
            assert anyio.current_time() - began < 2


@virtual
@pytest.mark.filterwarnings("ignore:a ReplyStream was dropped:ResourceWarning")
@pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")
async def test_a_stream_that_is_dropped_ends_in_the_event_loops_next_turn() -> None:
    """Not in the finalizer, which may run within the limiter's or the pool's own code."""
    limiter = Limiter(max_at_once=1)
    async with scripted_site([Say("a"), Hang()], [Say("b")]) as site:
        async with site.client(limiter=limiter) as client:
            cycle: list[object] = [client.stream("1")]
            await cycle[0].__aenter__()  # type: ignore[attr-defined]
            cycle.append(cycle)
            del cycle
            gc.collect()
            assert limiter.statistics().running == 1
            assert (await client.ask("2")).text == "b"
            assert limiter.statistics().running == 0
