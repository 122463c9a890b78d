"""The limit on connections, the order of requests, and the reuse of connections."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from anyio.streams.tls import TLSStream
from support.blocked import all_tasks_blocked
from support.loops import VIRTUAL_LOOPS
from support.reactors import running_reactor
from support.servers import (
    ENDS,
    OK,
    Peer,
    black_hole,
    client_context,
    closed_port,
    open_sockets,
    repeating,
    server_context,
    serving,
)

from gprochat_anyio.testing import scripted_site
from gprochat_anyio.transport import _pool, _reactor
from gprochat_anyio.transport._connecting import Opened
from gprochat_anyio.transport._connection import Connection
from gprochat_anyio.transport._failures import ConnectFailure
from gprochat_anyio.transport._pool import Pool
from gprochat_anyio.transport._target import Target

from .exchanges import GET, exchange, get, idle, no_stage, rest_of

HERE = Target("http", "site.test", 80)
THERE = Target("http", "site.test", 81)
VIRTUAL = pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)


class Clock:
    """The parts of a reactor that a pool uses."""

    @property
    def now(self) -> float:
        return anyio.current_time()

    def clock(self) -> float:
        return anyio.current_time()

    def join(self) -> None:
        pass

    def leave(self) -> None:
        pass


class Fake:
    """A connection that is just open or closed."""

    on_unsolicited = receiver = None
    reused = False
    expires = 0.0

    def __init__(self, number: int, target: Target, reactor: Any) -> None:
        self.number = number
        self.target = target
        self.reactor = reactor
        self.closed = False

    def is_quiet(self) -> bool:
        return not self.closed

    def close(self) -> None:
        self.closed = True


class Network:
    """A replacement of connecting that counts connections."""

    def __init__(self) -> None:
        self.connections: list[Fake] = []
        self.delay = 0.0
        self.failing = False

    async def connect(self, target: Target, **_: object) -> Opened:
        await anyio.sleep(self.delay)
        if self.failing:
            raise ConnectFailure("could not connect")
        nothing: Any = None
        return Opened(nothing, ())

    def connection(self, _: object, __: object, target: Target, reactor: Any) -> Fake:
        self.connections.append(Fake(len(self.connections), target, reactor))
        return self.connections[-1]

    @property
    def open(self) -> list[int]:
        return [connection.number for connection in self.connections if not connection.closed]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    made = Network()
    monkeypatch.setattr(_pool, "connect", made.connect)
    monkeypatch.setattr(_pool, "SocketConnection", made.connection)
    monkeypatch.setattr(_pool, "current_reactor", Clock)
    return made


def number(connection: Connection) -> int:
    assert isinstance(connection, Fake)
    return connection.number


async def acquire(pool: Pool, target: Target = HERE, **options: bool) -> Connection:
    with anyio.fail_after(1000):
        return await pool.acquire(target, no_stage, **options)


@VIRTUAL
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


@VIRTUAL
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


@VIRTUAL
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


@pytest.mark.usefixtures("reader_tasks")
class TestQuiet:
    """On real sockets: an idle connection with incoming data is closed."""

    @asynccontextmanager
    async def after_an_exchange(
        self, act: Callable[[Peer], Any], *, tls: bool = False
    ) -> AsyncIterator[tuple[Pool, Target, Connection]]:
        async def handle(peer: Peer) -> None:
            first = server.accepted == 1
            await peer.request()
            await peer.send(OK)
            if not first:
                await peer.until_closed()
            await go_on.wait()
            await act(peer)

        go_on = anyio.Event()
        context = server_context() if tls else None
        with anyio.fail_after(10):
            async with serving(handle, tls=context) as server:
                pool = Pool(max_connections=2, ssl_context=client_context())
                target = Target("https" if tls else "http", "127.0.0.1", server.port)
                await get(pool, target)
                (kept,) = pool.statistics().idle
                assert kept.is_quiet()
                go_on.set()
                yield pool, target, kept
                pool.close()
                assert running_reactor() is None
                assert open_sockets(server.port) == 0

    @pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
    @pytest.mark.parametrize("end", ["FIN", "RST", "data"])
    async def test_is_closed_immediately(self, end: str, *, tls: bool) -> None:
        async def act(peer: Peer) -> None:
            if end == "RST":
                peer.reset()
            elif end == "data":
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad")
                await peer.until_closed()

        async with self.after_an_exchange(act, tls=tls) as (pool, target, kept):
            while idle(pool):
                await checkpoint()
            assert kept.closed
            assert kept.fileno() == -1
            assert running_reactor() is None
            assert pool.statistics().available == 2
            made = await exchange(pool, target, GET)
            assert not made.exchange.reused
            assert await rest_of(made) == b"ok"
            made.close()

    @pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
    @pytest.mark.parametrize("end", ["FIN", "RST", "data"])
    async def test_is_not_used_again_before_that(self, end: str, *, tls: bool) -> None:
        """The next request starts in the same turn of the event loop."""

        async def act(peer: Peer) -> None:
            if end == "RST":
                peer.reset()
            elif end == "data":
                await peer.send(b"!")
                await peer.until_closed()

        async with self.after_an_exchange(act, tls=tls) as (pool, target, kept):
            kept.on_unsolicited = None  # the pool is not notified
            while kept.is_quiet():
                await checkpoint()
            made = await exchange(pool, target, GET)
            assert kept.closed
            assert not made.exchange.reused
            assert await rest_of(made) == b"ok"
            made.close()
            assert idle(pool) == 1

    @pytest.mark.parametrize("what", ["data", "end of TLS", "garbage"])
    async def test_not_used_again_if_data_is_read_with_the_response(self, what: str) -> None:
        async def go_on(peer: Peer) -> None:
            with suppress(*ENDS):
                assert isinstance(peer.stream, TLSStream)
                if what == "end of TLS":
                    await peer.stream.unwrap()
                elif what == "garbage":
                    await peer.stream.transport_stream.send(b"\x17\x03\x03\0\x20" + bytes(32))
                    await peer.until_closed()
                else:
                    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad")
                    await peer.until_closed()

        async def handle(peer: Peer) -> None:
            await peer.request()
            if server.accepted > 1:
                await peer.send(OK)
                await peer.until_closed()
            await pool_is_paused.wait()
            await peer.send(OK)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(go_on, peer)
                await all_tasks_blocked()
                both_sent.set()

        both_sent, pool_is_paused = anyio.Event(), anyio.Event()
        with anyio.fail_after(10):
            async with serving(handle, tls=server_context()) as server:
                pool = Pool(max_connections=2, ssl_context=client_context())
                target = Target("https", "127.0.0.1", server.port)
                bodies: list[bytes] = []
                async with anyio.create_task_group() as tasks:

                    async def first() -> None:
                        bodies.append(await get(pool, target))

                    tasks.start_soon(first)
                    await server.until(lambda: server.accepted == 1)
                    connection = await _watched_connection()
                    connection.pause()
                    pool_is_paused.set()
                    await both_sent.wait()
                    connection.resume()
                assert bodies == [b"ok"]
                assert connection.closed  # pyright: ignore[reportPossiblyUnboundVariable]
                assert idle(pool) == 0
                made = await exchange(pool, target, GET)
                assert not made.exchange.reused
                assert await rest_of(made) == b"ok"
                made.close()
                pool.close()

    async def test_a_closed_connection_is_not_quiet(self) -> None:
        async with self.after_an_exchange(Peer.until_closed) as (_, _, kept):
            kept.close()
            assert not kept.is_quiet()

    async def test_session_tickets_are_not_unsolicited_data(self) -> None:
        """TLS 1.3 sends them after the handshake; some servers, with the first response."""
        async with self.after_an_exchange(Peer.until_closed, tls=True) as (pool, target, kept):
            for _ in range(20):
                await checkpoint()
            assert kept.is_quiet()
            assert pool.kept(target) is kept
            pool.discard(kept)

    async def test_descriptors_beyond_the_limit_of_select(self) -> None:
        with _many_descriptors():
            async with serving(repeating()) as server:
                pool = Pool()
                target = Target("http", "127.0.0.1", server.port)
                reused: list[bool] = []
                for _ in range(2):
                    made = await exchange(pool, target, GET)
                    reused.append(made.exchange.reused)
                    await rest_of(made)
                    made.close()
                assert reused == [False, True]
                pool.close()


async def _watched_connection() -> Any:
    """Return the only connection, once it exists and is idle."""
    while (reactor := running_reactor()) is None or not reactor._watched:
        await checkpoint()
    await all_tasks_blocked()
    ((_, callback),) = reactor._watched.values()
    return callback.__self__  # type: ignore[attr-defined]


class _many_descriptors:  # noqa: N801 - a context manager
    def __enter__(self) -> None:
        import resource  # noqa: PLC0415 - not on Windows

        if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 1200:
            pytest.skip("the limit of descriptors is too low")
        self._held: list[int] = []
        while not self._held or self._held[-1] < 1030:
            self._held.append(os.open(os.devnull, os.O_RDONLY))

    def __exit__(self, *exc_info: object) -> None:
        for descriptor in self._held:
            os.close(descriptor)


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


@VIRTUAL
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


async def test_sites_in_memory_have_their_own_urls() -> None:
    async with scripted_site("in memory"), serving(repeating()) as server:
        pool = Pool(max_connections=1)
        assert await get(pool, Target("http", "127.0.0.1", server.port)) == b"ok"
        pool.close()
        await server.all_ended()


@pytest.mark.usefixtures("reader_tasks")
async def test_a_connection_that_the_peer_resets_immediately() -> None:
    async def reset(peer: Peer) -> None:
        peer.reset()

    with anyio.fail_after(10):
        async with serving(reset) as server:
            pool = Pool(max_connections=1)
            target = Target("http", "127.0.0.1", server.port)
            connection = await pool.acquire(target, no_stage)
            await server.all_ended()
            pool.discard(connection)
            assert pool.statistics().available == 1
            assert open_sockets(server.port) == 0


@pytest.mark.parametrize("what", ["the reactor", "the socket"])
async def test_no_descriptor_is_free_to_watch_it(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoneLeft(_reactor.DefaultSelector):
        def __init__(self) -> None:
            if what == "the reactor":
                raise OSError(24, "Too many open files")
            super().__init__()

        def register(self, fileobj: Any, events: int, data: Any = None) -> Any:
            if events == _reactor.WRITE:  # it is connecting
                return super().register(fileobj, events, data)
            raise OSError(28, "No space left on device")

    with anyio.fail_after(10):
        async with serving(black_hole) as server:
            monkeypatch.setattr(_reactor, "DefaultSelector", NoneLeft)
            pool = Pool(max_connections=1)
            for _ in range(2):
                with pytest.raises(ConnectFailure, match=r"Too many open files|No space left"):
                    await pool.acquire(Target("http", "127.0.0.1", server.port), no_stage)
                assert pool.statistics().available == 1
                assert running_reactor() is None
                assert open_sockets(server.port) == 0
