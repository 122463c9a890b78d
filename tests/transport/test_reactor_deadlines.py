"""The reactor: its deadlines, waits for room, and the reader tasks in the place of a selector."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import inf

import anyio
import pytest
from anyio.lowlevel import checkpoint
from loops import VIRTUAL_LOOPS
from reactors import force_reader_tasks, running_reactor

from gprochat_anyio.transport import _reactor
from gprochat_anyio.transport._reactor import Reactor, current_reactor
from gprochat_anyio.transport._reader_tasks import ReaderTasks
from gprochat_anyio.transport._socket_connection import SocketConnection
from gprochat_anyio.transport._target import Target

from .receivers import Listening

TARGET = Target("http", "site.test", 80)
VIRTUAL = pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)
BOTH_WAYS = pytest.mark.usefixtures("reader_tasks")


@contextmanager
def pair() -> Iterator[tuple[SocketConnection, socket.socket]]:
    """A connection, and the socket at its other end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        connection = SocketConnection(ours, (), TARGET, current_reactor())
        try:
            yield connection, theirs
        finally:
            connection.close()


@contextmanager
def running() -> Iterator[Reactor]:
    """The event loop's reactor, kept running without a connection."""
    reactor = current_reactor()
    reactor.join()
    try:
        yield reactor
    finally:
        reactor.leave()


class Operation:
    """An operation whose deadline may move on."""

    def __init__(self, reactor: Reactor, seconds: float, log: list[str], name: str = "") -> None:
        self.reactor = reactor
        self.at = reactor.clock() + seconds
        self.name = name
        self.log = log
        self.over = anyio.Event()
        self.expired: float | None = None
        self.on_look: Callable[[], None] | None = None
        self.entry = reactor.add_deadline(self.at, self)

    def due(self, now: float) -> float:
        return self.at

    def look(self) -> None:
        self.log.append(f"look {self.name}".strip())
        if self.on_look is not None:
            self.on_look()

    def expire(self) -> None:
        self.log.append(f"expire {self.name}".strip())
        self.expired = self.reactor.clock()
        self.over.set()

    def drop(self) -> None:
        self.reactor.drop_deadline(self.entry)


class TestReaderTasks:
    async def test_stand_in_where_no_selector_has_a_descriptor(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        force_reader_tasks(monkeypatch)
        with running() as reactor:
            assert isinstance(reactor._selector, ReaderTasks)

    async def test_one_that_is_cancelled_as_the_data_comes_calls_nobody(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        force_reader_tasks(monkeypatch)
        for ticks in range(6):
            with pair() as (connection, theirs):
                connection.receiver = listening = Listening()
                await anyio.wait_all_tasks_blocked()
                theirs.send(b"data")
                for _ in range(ticks):
                    await checkpoint()
                told = list(listening.told)
                connection.pause()
                for _ in range(6):
                    await checkpoint()
                assert listening.told == told
                connection.resume()
                await listening.until(b"data")


@BOTH_WAYS
class TestWaitingForRoom:
    async def test_a_connected_socket_is_writable(self) -> None:
        one, other = socket.socketpair()
        with one, other:
            one.setblocking(False)
            with anyio.fail_after(5):
                await current_reactor().wait_writable(one.fileno())
        assert running_reactor() is None

    async def test_cancelled_it_leaves_nothing(self) -> None:
        one, other = socket.socketpair()
        with one, other:
            one.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    one.send(bytes(65536))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(current_reactor().wait_writable, one.fileno())
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
        assert running_reactor() is None


@VIRTUAL
class TestDeadlines:
    async def test_each_expires_at_its_time(self) -> None:
        log: list[str] = []
        with running() as reactor:
            began = reactor.clock()
            operations = [Operation(reactor, seconds, log) for seconds in (3, 1, 2)]
            for operation in operations:
                await operation.over.wait()
            times = [(operation.expired or inf) - began for operation in operations]
        assert times == pytest.approx([3, 1, 2])

    async def test_one_that_has_moved_on_is_looked_at_again(self) -> None:
        log: list[str] = []
        with running() as reactor:
            began = reactor.clock()
            operation = Operation(reactor, 1, log)
            operation.at = began + 4
            await anyio.sleep(2)
            assert log == []
            await operation.over.wait()
            assert operation.expired == pytest.approx(began + 4)

    async def test_what_has_arrived_moves_it_on(self) -> None:
        log: list[str] = []
        with running() as reactor:
            began = reactor.clock()
            operation = Operation(reactor, 1, log)

            def arrived() -> None:
                operation.at = began + 3
                operation.on_look = None

            operation.on_look = arrived
            await operation.over.wait()
            assert operation.expired == pytest.approx(began + 3)
        assert log == ["look", "look", "expire"]

    async def test_what_has_arrived_ends_the_operation(self) -> None:
        log: list[str] = []
        with running() as reactor:
            operation = Operation(reactor, 1, log)
            operation.on_look = operation.drop
            await anyio.sleep(5)
        assert log == ["look"]

    async def test_dropped_it_does_not_expire(self) -> None:
        log: list[str] = []
        with running() as reactor:
            dropped = Operation(reactor, 1, log, "dropped")
            other = Operation(reactor, 2, log, "other")
            dropped.drop()
            dropped.drop()  # twice is nothing
            await other.over.wait()
        assert log == ["look other", "expire other"]

    async def test_dropped_ones_do_not_pile_up(self) -> None:
        log: list[str] = []
        with running() as reactor:
            lasting = Operation(reactor, 5, log)
            for _ in range(1000):
                Operation(reactor, 100, log).drop()
                assert len(reactor._deadlines) <= _reactor._FEW + 1
            await lasting.over.wait()
            assert reactor._deadlines == []
        assert log == ["look", "expire"]

    async def test_an_interrupt_in_one_leaves_the_others(self) -> None:
        log: list[str] = []
        with running() as reactor:
            first = Operation(reactor, 0, log, "first")
            second = Operation(reactor, 0, log, "second")

            def interrupt() -> None:
                raise KeyboardInterrupt

            first.on_look = interrupt
            with pytest.raises(KeyboardInterrupt):
                reactor.expire()
            with anyio.fail_after(5):
                await second.over.wait()
            assert "expire second" in log

    async def test_an_expiry_may_end_the_reactor(self) -> None:
        log: list[str] = []
        reactor = current_reactor()
        reactor.join()
        operation = Operation(reactor, 1, log)

        def end() -> None:
            operation.drop()
            reactor.leave()

        operation.on_look = end
        await anyio.sleep(5)
        assert log == ["look"]
        assert reactor.closed

    async def test_with_reader_tasks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        force_reader_tasks(monkeypatch)
        log: list[str] = []
        with running() as reactor:
            operation = Operation(reactor, 1, log)
            await operation.over.wait()
        assert log == ["look", "expire"]
