"""The choice of idle connections in a pool, their expiry, and closing."""

from __future__ import annotations

import anyio
import pytest
from support.blocked import all_tasks_blocked
from support.loops import virtual
from support.servers import repeating, serving

from gprochat_anyio.testing import scripted_site
from gprochat_anyio.transport._pool import Pool
from gprochat_anyio.transport._target import Target

from .exchanges import get, idle
from .fake_network import HERE, THERE, Fake, Network, acquire, number


@virtual
class TestKept:
    async def test_the_one_used_last_is_taken_first(self, network: Network) -> None:
        pool = Pool()
        connections = [await acquire(pool) for _ in range(3)]
        for connection in connections:
            assert not connection.reused
            pool.give_back(connection, 5)

        taken = [await acquire(pool) for _ in range(4)]

        assert [number(connection) for connection in taken] == [2, 1, 0, 3]
        assert [connection.reused for connection in taken] == [True, True, True, False]

    async def test_only_for_its_own_target(self, network: Network) -> None:
        pool = Pool()
        pool.give_back(await acquire(pool, HERE), 5)

        assert number(await acquire(pool, THERE)) == 1
        assert number(await acquire(pool, HERE)) == 0

    @pytest.mark.parametrize(("idle", "kept"), [(0, True), (3.9, True), (4.1, False), (60, False)])
    async def test_is_given_up_before_the_sites_limit(
        self, network: Network, idle: float, kept: bool
    ) -> None:
        pool = Pool()
        pool.give_back(await acquire(pool), 5)
        await anyio.sleep(idle)

        assert number(await acquire(pool)) == (0 if kept else 1)
        assert network.open == [0 if kept else 1]

    async def test_is_given_up_when_its_target_is_used_again(self, network: Network) -> None:
        pool = Pool()
        connections = [await acquire(pool) for _ in range(10)]
        for connection in connections:
            pool.give_back(connection, 5)
        await anyio.sleep(3.9)
        fresh = await acquire(pool)
        pool.give_back(fresh, 5)
        assert number(fresh) == 9
        await anyio.sleep(3)

        # a use adds at most one connection and closes two, so they do not accumulate
        for left in (8, 6, 4, 2, 1, 1):
            pool.give_back(await acquire(pool), 5)
            assert len(network.open) == left
        assert network.open == [9]

    @pytest.mark.parametrize("keep_alive", [0, -1])
    async def test_not_if_the_site_forbids_it(self, network: Network, keep_alive: float) -> None:
        pool = Pool(max_connections=1)
        pool.give_back(await acquire(pool), keep_alive)

        assert network.open == []
        assert number(await acquire(pool)) == 1

    async def test_not_if_a_new_one_is_requested(self, network: Network) -> None:
        pool = Pool()
        pool.give_back(await acquire(pool), 5)

        assert number(await acquire(pool, fresh=True)) == 1
        assert network.open == [0, 1]

    async def test_makes_room_for_a_new_one_at_the_limit(self, network: Network) -> None:
        pool = Pool(max_connections=1)
        pool.give_back(await acquire(pool), 5)

        assert number(await acquire(pool, fresh=True)) == 1
        assert network.open == [1]

    async def test_makes_room_for_another_target_at_the_limit(self, network: Network) -> None:
        pool = Pool(max_connections=2)
        connections = [await acquire(pool, HERE), await acquire(pool, HERE)]
        for connection in connections:
            pool.give_back(connection, 5)

        other = await acquire(pool, THERE)

        assert network.open == [1, 2]  # the one that had been idle for longest was closed
        pool.give_back(other, 5)
        assert number(await acquire(pool, THERE)) == 2
        assert number(await acquire(pool, HERE)) == 1


@virtual
class TestClosing:
    async def test_closes_the_idle_ones(self, network: Network) -> None:
        pool = Pool()
        for target in (HERE, HERE, THERE):
            pool.give_back(await acquire(pool, target, fresh=True), 5)
        in_use = await acquire(pool, HERE)

        pool.close()

        assert network.open == [number(in_use)]
        pool.give_back(in_use, 5)
        assert network.open == []

    async def test_closing_twice(self, network: Network) -> None:
        pool = Pool()
        pool.close()
        pool.close()

    async def test_a_connection_passed_to_a_cancelled_request_is_closed_too(
        self, network: Network
    ) -> None:
        pool = Pool(max_connections=1)
        held = await acquire(pool)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(acquire, pool)
            await all_tasks_blocked()
            tasks.cancel_scope.cancel()
            pool.give_back(held, 5)  # to the request that is being cancelled
            assert idle(pool) == 0
            pool.close()

        assert network.open == []
        assert pool._free == 1

    async def test_a_close_that_fails_frees_the_slot(
        self, network: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Fake, "close", _failing)
        pool = Pool(max_connections=1)
        connection = await acquire(pool)
        with pytest.raises(OSError, match="closing failed"):
            pool.discard(connection)
        assert pool.statistics().available == 1

        pool.give_back(await acquire(pool), 5)
        with pytest.raises(OSError, match="closing failed"):
            await acquire(pool, THERE)
        assert pool.statistics().available == 1


def _failing(_: Fake) -> None:
    raise OSError("closing failed")


async def test_sites_in_memory_have_their_own_urls() -> None:
    async with scripted_site("in memory"), serving(repeating()) as server:
        pool = Pool(max_connections=1)
        assert await get(pool, Target("http", "127.0.0.1", server.port)) == b"ok"
        pool.close()
        await server.all_ended()
