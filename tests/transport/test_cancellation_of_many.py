"""Cancellation of requests that wait for each other, and of hundreds at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.blocked import all_tasks_blocked
from support.servers import (
    CHUNKED,
    LAST_CHUNK,
    Peer,
    black_hole,
    client_context,
    open_sockets,
    repeating,
    serving,
)

from gprochat_anyio.testing import Injection, cancelled, injections
from gprochat_anyio.transport._connection import Connection
from gprochat_anyio.transport._pool import Pool
from gprochat_anyio.transport._target import Target

from .cancelling import bounded
from .exchanges import get, idle, no_stage

pytestmark = pytest.mark.usefixtures("no_garbage_collector", "reader_tasks")


class TestWaiting:
    """A request that waits for a slot is cancelled."""

    @pytest.mark.slow
    @pytest.mark.parametrize("native", [False, True], ids=["scope", "native"])
    @pytest.mark.parametrize("ticks", range(8))
    @pytest.mark.parametrize("giving", ["back", "up"])
    async def test_around_the_turn_in_which_it_gets_one(
        self, ticks: int, giving: str, native: bool, anyio_backend_name: str
    ) -> None:
        if native and anyio_backend_name == "trio":
            pytest.skip("requires asyncio")
        async with bounded(), serving(repeating()) as server:
            target = Target("http", "127.0.0.1", server.port)
            for early in (False, True):
                pool = Pool(max_connections=1)
                give = partial(pool.give_back, keep_alive=5) if giving == "back" else pool.discard
                held = await pool.acquire(target, no_stage)
                scope = anyio.CancelScope()

                async def wait(pool: Pool = pool, scope: anyio.CancelScope = scope) -> None:
                    with scope:
                        await get(pool, target)

                task: asyncio.Task[None] | None = None
                cancel: Callable[[], object]
                async with anyio.create_task_group() as tasks:
                    if native:
                        task = asyncio.create_task(wait())
                        cancel = task.cancel
                    else:
                        tasks.start_soon(wait)
                        cancel = scope.cancel
                    await all_tasks_blocked()
                    assert len(pool._waiting) == 1
                    if early:
                        cancel()
                        for _ in range(ticks):
                            await checkpoint()
                        give(held)
                    else:
                        give(held)
                        for _ in range(ticks):
                            await checkpoint()
                        cancel()
                    if task is not None:
                        await asyncio.wait([task])

                assert not pool._waiting
                assert pool._free == 1 - idle(pool)
                assert open_sockets(server.port) == idle(pool)
                assert await get(pool, target) == b"ok"
                pool.close()
            await server.all_ended()

    @pytest.mark.slow
    async def test_at_every_suspension(self) -> None:
        async with bounded(), serving(repeating()) as server:
            target = Target("http", "127.0.0.1", server.port)
            for moment, native in injections():
                at, end = 0, ""
                while end != "not reached":
                    at += 1
                    pool = Pool(max_connections=1)
                    held = await pool.acquire(target, no_stage)
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(_give_up_once_waited_for, pool, held)
                        end = await cancelled(
                            Injection(at, moment, native), partial(get, pool, target)
                        )
                    assert not pool._waiting
                    assert pool._free == 1 - idle(pool)
                    assert await get(pool, target) == b"ok"
                    pool.close()
            await server.all_ended()

    @pytest.mark.slow
    async def test_a_group_of_more_requests_than_slots(self) -> None:
        """This makes httpcore's pool lose every slot for ever."""
        async with bounded(), serving(repeating()) as server:
            target = Target("http", "127.0.0.1", server.port)
            for ticks in range(25):
                pool = Pool(max_connections=2)
                async with anyio.create_task_group() as tasks:
                    for _ in range(6):
                        tasks.start_soon(get, pool, target)
                    for _ in range(ticks):
                        await checkpoint()
                    tasks.cancel_scope.cancel()

                assert not pool._waiting
                assert pool._free == 2 - idle(pool)
                assert open_sockets(server.port) == idle(pool)
                async with anyio.create_task_group() as tasks:
                    for _ in range(6):
                        tasks.start_soon(get, pool, target)
                pool.close()
            await server.all_ended()


async def _give_up_once_waited_for(pool: Pool, held: Connection) -> None:
    await all_tasks_blocked()
    pool.discard(held)


@pytest.mark.slow
async def test_five_hundred_streams_at_random() -> None:
    async def trickle(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(CHUNKED)
            for _ in range(5):
                await anyio.sleep(chance.random() / 50)
                await peer.send(b"1\r\n.\r\n")
            await peer.send(LAST_CHUNK)

    chance = random.Random(3)
    async with bounded(), serving(trickle) as server:
        target = Target("http", "127.0.0.1", server.port)
        pool = Pool(max_connections=100)
        finished = 0

        async def stream(limit: float) -> None:
            nonlocal finished
            with anyio.move_on_after(limit):
                assert await get(pool, target) == b"....."
                finished += 1

        async with anyio.create_task_group() as tasks:
            for number in range(500):
                # Some have enough time, however busy the machine is.
                tasks.start_soon(stream, chance.random() * 1.5 if number % 25 else 60)

        assert 0 < finished < 500
        assert not pool._waiting
        assert pool._free == 100 - idle(pool)
        assert open_sockets(server.port) == idle(pool)
        assert await get(pool, target) == b"....."
        pool.close()
        assert open_sockets(server.port) == 0
        assert pool._free == 100
        await server.all_ended()


@pytest.mark.slow
async def test_fifty_handshakes_at_once_with_a_black_hole() -> None:
    async with bounded(), serving(black_hole) as server:
        target = Target("https", "127.0.0.1", server.port)
        pool = Pool(max_connections=50, ssl_context=client_context())
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(get, pool, target)
            await server.until(lambda: server.accepted == 50)
            tasks.cancel_scope.cancel()

        assert open_sockets(server.port) == 0
        assert pool._free == 50
        await server.all_ended()
