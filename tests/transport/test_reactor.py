"""The reactor: one per event loop, from the first connection to the last."""

from __future__ import annotations

import contextvars
import gc
import selectors
import socket
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.blocked import all_tasks_blocked
from support.garbage import without_garbage_collector
from support.leaks import needs_proc
from support.reactors import running_reactor
from support.servers import black_hole, serving

from gprochat_anyio.testing import no_leaks
from gprochat_anyio.transport import _reactor
from gprochat_anyio.transport._pool import Pool
from gprochat_anyio.transport._reactor import READ, WRITE, Reactor, current_reactor
from gprochat_anyio.transport._target import Target

from .exchanges import no_stage
from .watching import Never, Watched, get_once, watched


def descriptors() -> set[str]:
    """Return the kinds of the open descriptors. A pair and an epoll have names of their own."""
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the descriptor of the listing itself
            found.add(f"{each.name} {each.readlink()}")
    return found


@pytest.mark.usefixtures("reader_tasks")
class TestLife:
    async def test_one_for_all_connections(self) -> None:
        with watched() as one, watched() as other:
            assert one.connection.reactor is other.connection.reactor is current_reactor()
            one.connection.close()
            assert running_reactor() is other.connection.reactor
            other.other.send(b"data")
            await other.listening.until(b"data")
        assert running_reactor() is None

    async def test_a_new_one_after_the_last_connection(self) -> None:
        reactors: list[Reactor] = []
        for _ in range(3):
            with watched() as one:
                one.other.send(b"data")
                await one.listening.until(b"data")
                reactors.append(one.connection.reactor)
        assert len(set(map(id, reactors))) == 3
        assert all(reactor.closed for reactor in reactors)

    @pytest.mark.slow
    @needs_proc
    async def test_nothing_is_left_of_it(self) -> None:
        """Tasks, descriptors, readers and timers would keep the object alive."""
        with without_garbage_collector():
            await get_once()  # event loops and AnyIO allocate on first use
            before = descriptors()
            for _ in range(3):
                async with no_leaks():
                    with watched() as one:
                        reactor = one.connection.reactor
                        deadline = reactor.add_deadline(reactor.clock() + 1000, Never())
                        one.other.send(b"data")
                        await one.listening.until(b"data")
                    reactor.drop_deadline(deadline)
                    gone = weakref.ref(reactor)
                    del reactor, one, deadline
                for _ in range(5):
                    await checkpoint()
                tasks = [task.name for task in anyio.get_running_tasks()]
                assert not [name for name in tasks if name and name.startswith("gprochat_anyio")]
                assert gone() is None
                assert descriptors() == before

    async def test_closed_before_it_has_started(self) -> None:
        """On Trio its task has not run yet, nor have reader tasks."""
        for _ in range(3):
            with watched():
                pass
            with watched() as one:
                one.other.send(b"data")
                await one.listening.until(b"data")

    async def test_a_descriptor_that_is_reused_immediately(self) -> None:
        for _ in range(10):
            with watched() as one:
                one.connection._watch(READ | WRITE)
                await checkpoint()
                fd = one.connection.fileno()
                one.connection.close()
                with watched() as other:
                    assert other.connection.fileno() == fd
                    other.other.send(b"data")
                    await other.listening.until(b"data")
                    assert one.listening.told == []

    async def test_closed_by_a_deadline(self) -> None:
        """In a callback of the event loop, outside any task."""

        class Closing(Never):
            def due(self, now: float) -> float:
                return now

            def expire(self) -> None:
                one.connection.close()

        with watched() as one, watched() as other:
            reactor = current_reactor()
            await checkpoint()
            reactor.add_deadline(reactor.clock(), Closing())
            while not one.connection.closed:
                await checkpoint()
            other.other.send(b"data")
            await other.listening.until(b"data")

    async def test_anyio_works_in_a_receiver(self) -> None:
        times: list[float] = []
        with watched() as one, watched():
            one.listening.feed = lambda data: times.append(anyio.current_time())  # type: ignore[method-assign]
            one.other.send(b"data")
            with anyio.fail_after(5):
                while not times:
                    await checkpoint()

    @pytest.mark.slow
    async def test_it_keeps_no_context_of_the_first_user(self) -> None:
        class Value:
            pass

        variable: contextvars.ContextVar[Value] = contextvars.ContextVar("variable")
        made: list[Watched] = []
        values: list[weakref.ref[Value]] = []

        async def first() -> None:
            value = Value()
            values.append(weakref.ref(value))
            variable.set(value)
            made.append(Watched())
            reactor = current_reactor()
            reactor.add_deadline(reactor.clock() + 1000, Never())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first)
        for _ in range(3):
            await checkpoint()
        gc.collect()
        assert values[0]() is None
        made[0].close()


class TestWaitingToConnect:
    @pytest.mark.usefixtures("reader_tasks")
    async def test_a_connected_socket_is_writable(self) -> None:
        one, other = socket.socketpair()
        with one, other:
            one.setblocking(False)
            with anyio.fail_after(5):
                await current_reactor().wait_writable(one.fileno())
        assert running_reactor() is None

    @pytest.mark.usefixtures("reader_tasks")
    async def test_cancellation_leaves_nothing(self) -> None:
        ours, other = socket.socketpair()
        with ours, other:
            ours.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    ours.send(bytes(100_000))
            reactor = current_reactor()
            with anyio.move_on_after(0.01) as scope:
                await reactor.wait_writable(ours.fileno())
            assert scope.cancelled_caught
            assert reactor.closed
            reactor = current_reactor()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(reactor.wait_writable, ours.fileno())
                await all_tasks_blocked()
                other.recv(10_000_000)
            assert reactor.closed

    async def test_a_selector_that_is_full(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Full(selectors.DefaultSelector):
            def register(self, fileobj: Any, events: int, data: Any = None) -> Any:
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(_reactor, "DefaultSelector", Full)
        ours, other = socket.socketpair()
        with ours, other:
            reactor = current_reactor()
            with pytest.raises(OSError, match="No space left"):
                await reactor.wait_writable(ours.fileno())
            assert reactor.closed
            assert reactor._watched == {}


async def test_the_pools_connection_is_watched_by_it() -> None:
    async with serving(black_hole) as server:
        pool = Pool()
        connection = await pool.acquire(Target("http", "127.0.0.1", server.port), no_stage)
        assert connection.reactor is running_reactor()
        pool.discard(connection)
        assert running_reactor() is None
        await server.all_ended()
