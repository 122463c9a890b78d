"""The limit on connections, and the order of requests that wait for one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from support.blocked import all_tasks_blocked
from support.loops import virtual
from support.servers import closed_port

from gprochat_anyio.transport._connection import Connection
from gprochat_anyio.transport._failures import ConnectFailure
from gprochat_anyio.transport._pool import Pool
from gprochat_anyio.transport._target import Target

from .fake_network import HERE, THERE, Network, acquire, number


@virtual
class TestBound:
    async def test_none_is_no_limit(self, network: Network) -> None:
        pool = Pool(max_connections=None)
        for _ in range(1000):
            await acquire(pool)
        assert len(network.open) == 1000

    async def test_first_come_first_served(self, network: Network) -> None:
        pool = Pool(max_connections=1)
        held = await acquire(pool)
        served: list[int] = []

        async def request(index: int) -> None:
            connection = await acquire(pool)
            served.append(index)
            await anyio.sleep(1)
            if index % 3:
                pool.give_back(connection, 5)
            else:
                pool.discard(connection)

        async with anyio.create_task_group() as tasks:
            for index in range(20):
                tasks.start_soon(request, index)
                await all_tasks_blocked()
            assert len(network.connections) == 1
            pool.give_back(held, 5)
            late = await acquire(pool)  # a new request does not overtake waiting ones
            assert len(served) == 20
            pool.discard(late)

        assert served == list(range(20))
        assert pool._free == 1

    async def test_a_connection_is_passed_from_request_to_request(self, network: Network) -> None:
        pool = Pool(max_connections=1)
        held = await acquire(pool)
        taken: list[tuple[int, bool]] = []

        async def request(target: Target, fresh: bool) -> None:
            connection = await acquire(pool, target, fresh=fresh)
            taken.append((number(connection), connection.reused))
            pool.give_back(connection, 5)

        async with anyio.create_task_group() as tasks:
            for target, fresh in ((HERE, False), (THERE, False), (THERE, False), (THERE, True)):
                tasks.start_soon(request, target, fresh)
                await all_tasks_blocked()
            pool.give_back(held, 5)

        assert taken == [(0, True), (1, False), (1, True), (2, False)]
        assert network.open == [2]

    async def test_a_connection_that_expires_while_passed_on_is_replaced(
        self, network: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pool = Pool(max_connections=1)
        held = await acquire(pool)
        await anyio.sleep(1)  # otherwise the clock is at 0, where the smallest times still count
        taken: list[int] = []

        async def request() -> None:
            taken.append(number(await acquire(pool)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(request)
            await all_tasks_blocked()
            pool.give_back(held, 1e-99)

        assert taken == [1]
        assert network.open == [1]

    async def test_no_deadline_runs_while_waiting(self, network: Network) -> None:
        pool = Pool(max_connections=1)
        network.delay = 1
        stages: list[tuple[str, float]] = []

        def on_stage(stage: str) -> None:
            stages.append((stage, anyio.current_time()))

        began = anyio.current_time()
        held = await pool.acquire(HERE, on_stage)

        async def give_up() -> None:
            await anyio.sleep(5)
            pool.discard(held)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(give_up)
            await pool.acquire(HERE, on_stage)

        assert [stage for stage, _ in stages] == ["connect", "connect"]
        assert [at - began for _, at in stages] == pytest.approx([0, 6])

    async def test_a_failure_to_connect_frees_the_slot(self, network: Network) -> None:
        pool = Pool(max_connections=1)
        network.failing = True
        for _ in range(3):
            with pytest.raises(ConnectFailure):
                await acquire(pool)
        network.failing = False
        await acquire(pool)
        assert pool._free == 0


class Counting(OrderedDict[Any, Any]):
    """A mapping that counts operations, and refuses iteration."""

    operations = 0

    def __setitem__(self, key: Any, value: Any) -> None:
        Counting.operations += 1
        super().__setitem__(key, value)

    def __delitem__(self, key: Any) -> None:
        Counting.operations += 1
        super().__delitem__(key)

    def popitem(self, last: bool = True) -> Any:
        Counting.operations += 1
        return super().popitem(last)

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("iteration over all waiters")


@virtual
@pytest.mark.parametrize("count", [10, 1000])
async def test_no_work_grows_with_the_number_of_requests(
    count: int, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = 0
    is_good = Pool._is_good

    def counted(connection: Connection) -> bool:
        nonlocal checks
        checks += 1
        return is_good(connection)

    monkeypatch.setattr(Pool, "_is_good", staticmethod(counted))
    pool = Pool(max_connections=5)
    pool._waiting = Counting()
    Counting.operations = 0

    async def request() -> None:
        pool.give_back(await acquire(pool), 5)

    held = [await acquire(pool) for _ in range(5)]
    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(request)
        await all_tasks_blocked()
        cancelled = anyio.CancelScope()

        async def give_up() -> None:
            with cancelled:
                await acquire(pool)

        tasks.start_soon(give_up)
        await all_tasks_blocked()
        cancelled.cancel()
        await all_tasks_blocked()
        for connection in held:
            pool.give_back(connection, 5)

    assert Counting.operations == 2 * (count + 1)
    assert checks == count
    assert len(network.connections) == 5


async def test_the_stage_begins_once_there_is_a_slot() -> None:
    pool = Pool(max_connections=1)
    stages: list[str] = []
    with pytest.raises(ConnectFailure, match=r"could not connect to 127\.0\.0\.1:"):
        await pool.acquire(Target("http", "127.0.0.1", closed_port()), stages.append)
    assert stages == ["connect"]
    assert pool._free == 1
