"""The bound on connections, who gets the next one, and which are used again."""

from __future__ import annotations

import os
import select
import socket
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint
from anyio.streams.tls import TLSStream
from loops import VIRTUAL_LOOPS

from gprochat_anyio.transport import _pool
from gprochat_anyio.transport._connecting import close_now
from gprochat_anyio.transport._exchange import exchange
from gprochat_anyio.transport._failures import ConnectFailure
from gprochat_anyio.transport._pool import Connection, Pool
from gprochat_anyio.transport._target import Target

from .servers import (
    ENDS,
    OK,
    Peer,
    client_context,
    open_sockets,
    repeating,
    server_context,
    serving,
    unused_port,
)

GET = b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n"
HERE = Target("http", "site.test", 80)
THERE = Target("http", "site.test", 81)
VIRTUAL = pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)


def no_stage(stage: str) -> None:
    pass


class Stream(ByteStream):
    """A connection of which only matters whether it is open."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.open = True

    async def receive(self, max_bytes: int = 65536) -> bytes:
        raise AssertionError

    async def send(self, item: bytes) -> None:
        raise AssertionError

    async def send_eof(self) -> None:
        raise AssertionError

    async def aclose(self) -> None:
        self.open = False
        await checkpoint()


class Network:
    """Stands in for `anyio.connect_tcp`, and counts."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.delay = 0.0
        self.failing = False

    async def connect_tcp(self, host: str, port: int) -> ByteStream:
        await anyio.sleep(self.delay)
        if self.failing:
            raise OSError(111, "Connection refused")
        self.streams.append(Stream(len(self.streams)))
        return self.streams[-1]

    @property
    def open(self) -> list[int]:
        return [stream.number for stream in self.streams if stream.open]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    made = Network()
    monkeypatch.setattr(anyio, "connect_tcp", made.connect_tcp)
    return made


def number(connection: Connection) -> int:
    assert isinstance(connection.stream, Stream)
    return connection.stream.number


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
            await pool.give_back(connection, 5)

        taken = [await acquire(pool) for _ in range(4)]

        assert [number(connection) for connection in taken] == [2, 1, 0, 3]
        assert [connection.reused for connection in taken] == [True, True, True, False]

    async def test_only_for_its_own_target(self, network: Network) -> None:
        pool = Pool()
        await pool.give_back(await acquire(pool, HERE), 5)

        assert number(await acquire(pool, THERE)) == 1
        assert number(await acquire(pool, HERE)) == 0

    @pytest.mark.parametrize(("idle", "kept"), [(0, True), (3.9, True), (4.1, False), (60, False)])
    async def test_is_given_up_before_the_sites_limit(
        self, network: Network, idle: float, kept: bool
    ) -> None:
        pool = Pool()
        await pool.give_back(await acquire(pool), 5)
        await anyio.sleep(idle)

        assert number(await acquire(pool)) == (0 if kept else 1)
        assert network.open == [0 if kept else 1]

    async def test_is_given_up_when_its_target_is_used_again(self, network: Network) -> None:
        pool = Pool()
        connections = [await acquire(pool) for _ in range(10)]
        for connection in connections:
            await pool.give_back(connection, 5)
        await anyio.sleep(3.9)
        fresh = await acquire(pool)
        await pool.give_back(fresh, 5)
        assert number(fresh) == 9
        await anyio.sleep(3)

        # one use adds one connection at the most and closes two, so they do not pile up
        for left in (8, 6, 4, 2, 1, 1):
            await pool.give_back(await acquire(pool), 5)
            assert len(network.open) == left
        assert network.open == [9]

    @pytest.mark.parametrize("keep_alive", [0, -1])
    async def test_not_when_the_site_says_so(self, network: Network, keep_alive: float) -> None:
        pool = Pool(max_connections=1)
        await pool.give_back(await acquire(pool), keep_alive)

        assert network.open == []
        assert number(await acquire(pool)) == 1

    async def test_not_when_a_fresh_one_is_asked_for(self, network: Network) -> None:
        pool = Pool()
        await pool.give_back(await acquire(pool), 5)

        assert number(await acquire(pool, fresh=True)) == 1
        assert network.open == [0, 1]

    async def test_makes_room_for_a_fresh_one_at_the_bound(self, network: Network) -> None:
        pool = Pool(max_connections=1)
        await pool.give_back(await acquire(pool), 5)

        assert number(await acquire(pool, fresh=True)) == 1
        assert network.open == [1]

    async def test_makes_room_for_another_target_at_the_bound(self, network: Network) -> None:
        pool = Pool(max_connections=2)
        connections = [await acquire(pool, HERE), await acquire(pool, HERE)]
        for connection in connections:
            await pool.give_back(connection, 5)

        other = await acquire(pool, THERE)

        assert network.open == [1, 2]  # the one that had been idle for longest went
        await pool.give_back(other, 5)
        assert number(await acquire(pool, THERE)) == 2
        assert number(await acquire(pool, HERE)) == 1


@VIRTUAL
class TestBound:
    async def test_none_is_no_bound(self, network: Network) -> None:
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
                await pool.give_back(connection, 5)
            else:
                await pool.discard(connection)

        async with anyio.create_task_group() as tasks:
            for index in range(20):
                tasks.start_soon(request, index)
                await anyio.wait_all_tasks_blocked()
            assert len(network.streams) == 1
            await pool.give_back(held, 5)
            late = await acquire(pool)  # who comes now does not pass by those who wait
            assert len(served) == 20
            await pool.discard(late)

        assert served == list(range(20))
        assert pool._free == 1

    async def test_a_connection_goes_from_hand_to_hand(self, network: Network) -> None:
        pool = Pool(max_connections=1)
        held = await acquire(pool)
        taken: list[tuple[int, bool]] = []

        async def request(target: Target, fresh: bool) -> None:
            connection = await acquire(pool, target, fresh=fresh)
            taken.append((number(connection), connection.reused))
            await pool.give_back(connection, 5)

        async with anyio.create_task_group() as tasks:
            for target, fresh in ((HERE, False), (THERE, False), (THERE, False), (THERE, True)):
                tasks.start_soon(request, target, fresh)
                await anyio.wait_all_tasks_blocked()
            await pool.give_back(held, 5)

        assert taken == [(0, True), (1, False), (1, True), (2, False)]
        assert network.open == [2]

    async def test_a_connection_that_expires_on_its_way_is_replaced(
        self, network: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pool = Pool(max_connections=1)
        held = await acquire(pool)
        await anyio.sleep(1)  # or the clock is at 0, where the least of times still counts
        taken: list[int] = []

        async def request() -> None:
            taken.append(number(await acquire(pool)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(request)
            await anyio.wait_all_tasks_blocked()
            await pool.give_back(held, 1e-99)

        assert taken == [1]
        assert network.open == [1]

    async def test_waiting_is_on_no_clock(self, network: Network) -> None:
        pool = Pool(max_connections=1)
        network.delay = 1
        stages: list[tuple[str, float]] = []

        def on_stage(stage: str) -> None:
            stages.append((stage, anyio.current_time()))

        began = anyio.current_time()
        held = await pool.acquire(HERE, on_stage)

        async def give_up() -> None:
            await anyio.sleep(5)
            await pool.discard(held)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(give_up)
            await pool.acquire(HERE, on_stage)

        assert [stage for stage, _ in stages] == ["connect", "connect"]
        assert [at - began for _, at in stages] == pytest.approx([0, 6])

    async def test_a_connection_that_can_not_be_made_frees_its_slot(self, network: Network) -> None:
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
            await pool.give_back(await acquire(pool, target, fresh=True), 5)
        in_use = await acquire(pool, HERE)

        await pool.aclose()

        assert network.open == [number(in_use)]
        await pool.give_back(in_use, 5)
        assert network.open == []

    async def test_twice_is_nothing(self, network: Network) -> None:
        pool = Pool()
        await pool.aclose()
        await pool.aclose()

    async def test_a_connection_on_its_way_to_a_cancelled_request_is_closed_too(
        self, network: Network
    ) -> None:
        pool = Pool(max_connections=1)
        held = await acquire(pool)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(acquire, pool)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
            give_back = pool.give_back(held, 5)
            with pytest.raises(StopIteration):  # it is given on without a suspension
                give_back.send(None)
            with anyio.CancelScope(shield=True):
                await pool.aclose()

        assert network.open == []
        assert pool._free == 1

    async def test_a_close_that_fails_frees_the_slot(
        self, network: Network, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pool = Pool(max_connections=1)
        connection = await acquire(pool)
        monkeypatch.setattr(connection.stream, "aclose", _failing)
        with pytest.raises(OSError, match="closing failed"):
            await pool.discard(connection)
        assert pool._free == 1

        connection = await acquire(pool)
        await pool.give_back(connection, 5)
        monkeypatch.setattr(connection.stream, "aclose", _failing)
        with pytest.raises(OSError, match="closing failed"):
            await acquire(pool, THERE)
        assert pool._free == 1


async def _failing() -> None:
    raise OSError("closing failed")


class TestQuiet:
    """On real sockets: what came while a connection was idle spoils it."""

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
                made = await exchange(pool, target, GET, on_stage=no_stage)
                await made.aclose()
                (kept,) = pool._idle[target]
                assert kept.is_quiet()
                go_on.set()
                yield pool, target, kept
                await pool.aclose()
                assert open_sockets(server.port) == 0

    @pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
    @pytest.mark.parametrize("end", ["FIN", "RST", "data"])
    async def test_is_not_used_again(self, end: str, *, tls: bool) -> None:
        async def act(peer: Peer) -> None:
            if end == "RST":
                peer.reset()
            elif end == "data":
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad")
                await peer.until_closed()

        async with self.after_an_exchange(act, tls=tls) as (pool, target, kept):
            while kept.is_quiet():
                await checkpoint()
            made = await exchange(pool, target, GET, on_stage=no_stage)
            assert not made.reused
            assert b"".join(await made.receive()) == b"ok"
            await made.aclose()
            assert pool._free == 1

    @pytest.mark.parametrize("what", ["data", "end of TLS", "garbage"])
    async def test_not_even_if_tls_has_read_on_already(self, what: str) -> None:
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
            await peer.send(OK)
            if server.accepted > 1:
                await peer.until_closed()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(go_on, peer)
                await anyio.wait_all_tasks_blocked()
                both_sent.set()

        both_sent = anyio.Event()
        with anyio.fail_after(10):
            async with serving(handle, tls=server_context()) as server:
                pool = Pool(max_connections=2, ssl_context=client_context())
                target = Target("https", "127.0.0.1", server.port)
                connection = await pool.acquire(target, no_stage)
                await connection.stream.send(GET)
                await both_sent.wait()
                assert await connection.stream.receive() == OK
                assert not connection.is_quiet()
                await pool.give_back(connection, 5)
                made = await exchange(pool, target, GET, on_stage=no_stage)
                assert not made.reused
                assert await made.receive() == [b"ok"]
                await made.aclose()
                await pool.aclose()

    async def test_a_closed_one_is_not_quiet(self) -> None:
        async with self.after_an_exchange(Peer.until_closed) as (_, _, kept):
            await close_now(kept.stream)
            assert not kept.is_quiet()

    async def test_without_poll(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(select, "poll", raising=False)

        async def act(peer: Peer) -> None:
            await peer.send(b"!")
            await peer.until_closed()

        async with self.after_an_exchange(act) as (_, _, kept):
            while kept.is_quiet():
                await checkpoint()

    async def test_beyond_the_descriptors_that_select_can_take(self) -> None:
        with _many_descriptors():
            async with serving(repeating()) as server:
                pool = Pool()
                target = Target("http", "127.0.0.1", server.port)
                reused: list[bool] = []
                for _ in range(2):
                    made = await exchange(pool, target, GET, on_stage=no_stage)
                    reused.append(made.reused)
                    await made.aclose()
                assert reused == [False, True]
                await pool.aclose()


class _many_descriptors:  # noqa: N801 - a context manager
    def __enter__(self) -> None:
        import resource  # noqa: PLC0415 - not on Windows

        if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 1200:
            pytest.skip("too few descriptors are allowed")
        self._held: list[int] = []
        while not self._held or self._held[-1] < 1030:
            self._held.append(os.open(os.devnull, os.O_RDONLY))

    def __exit__(self, *exc_info: object) -> None:
        for descriptor in self._held:
            os.close(descriptor)


class Counting(OrderedDict[Any, Any]):
    """Counts the operations on it, and refuses to be walked through."""

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
        raise AssertionError("somebody walks through the waiters")


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
        await pool.give_back(await acquire(pool), 5)

    held = [await acquire(pool) for _ in range(5)]
    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(request)
        await anyio.wait_all_tasks_blocked()
        cancelled = anyio.CancelScope()

        async def give_up() -> None:
            with cancelled:
                await acquire(pool)

        tasks.start_soon(give_up)
        await anyio.wait_all_tasks_blocked()
        cancelled.cancel()
        await anyio.wait_all_tasks_blocked()
        for connection in held:
            await pool.give_back(connection, 5)

    assert Counting.operations == 2 * (count + 1)
    assert checks == count
    assert len(network.streams) == 5


async def test_the_stage_begins_once_there_is_a_slot() -> None:
    pool = Pool(max_connections=1)
    stages: list[str] = []
    with pytest.raises(ConnectFailure, match=r"could not connect to 127\.0\.0\.1:"):
        await pool.acquire(Target("http", "127.0.0.1", unused_port()), stages.append)
    assert stages == ["connect"]
    assert pool._free == 1


def test_readable_tells_an_end_from_silence() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert not _pool._readable(one.fileno())
        other.close()
        assert _pool._readable(one.fileno())


@pytest.mark.parametrize("error", [OSError(107, "not connected"), AttributeError("getpeername")])
async def test_a_connection_that_the_peer_reset_at_once(
    network: Network, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """AnyIO's stream knows no socket any more then, or one without addresses."""

    def unknown(_: Stream) -> Any:
        raise error

    monkeypatch.setattr(Stream, "extra_attributes", property(unknown))
    pool = Pool(max_connections=1)
    connection = await acquire(pool)
    await pool.discard(connection)
    assert network.open == []
    assert pool.statistics().available == 1
