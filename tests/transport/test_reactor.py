"""The reactor: one per event loop, from the first connection to the last, and fair."""

from __future__ import annotations

import contextvars
import gc
import os
import selectors
import socket
import threading
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint, current_token
from leaks import needs_proc
from loops import LOOPS
from reactors import running_reactor

from gprochat_anyio.testing import no_leaks
from gprochat_anyio.transport import _reactor
from gprochat_anyio.transport._pool import Pool
from gprochat_anyio.transport._reactor import READ, WRITE, Reactor, current_reactor
from gprochat_anyio.transport._socket_connection import SocketConnection
from gprochat_anyio.transport._target import Target

from .exchanges import get, no_stage
from .receivers import Listening
from .servers import black_hole, repeating, serving

EACH_BACKEND = pytest.mark.parametrize("backend", LOOPS)
HERE = Target("http", "site.test", 80)


class Watched:
    """A connection over one end of a socket pair."""

    def __init__(self) -> None:
        ours, self.other = socket.socketpair()
        ours.setblocking(False)
        self.connection = SocketConnection(ours, (), HERE, current_reactor())
        self.listening = self.connection.receiver = Listening()

    def close(self) -> None:
        self.connection.close()
        self.other.close()


@contextmanager
def watched() -> Iterator[Watched]:
    made = Watched()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def without_garbage_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def descriptors() -> set[str]:
    """What the open descriptors are of; a pair's and an epoll's have names of their own."""
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the list's own
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

    @needs_proc
    async def test_nothing_is_left_of_it(self) -> None:
        """No task, descriptor, reader or timer: any of them would keep the object."""
        with without_garbage_collector():
            await get_once()  # what event loops and AnyIO make on first use
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

    async def test_closed_before_it_has_begun(self) -> None:
        """On Trio its task has not run yet, nor have reader tasks."""
        for _ in range(3):
            with watched():
                pass
            with watched() as one:
                one.other.send(b"data")
                await one.listening.until(b"data")

    async def test_a_descriptor_that_is_used_again_at_once(self) -> None:
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
        """In a callback of the event loop's, outside any task."""

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

    async def test_it_keeps_nothing_of_who_came_first(self) -> None:
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


class Never:
    """An operation whose deadline is far away."""

    def due(self, now: float) -> float:
        return now + 1000

    def look(self) -> None:
        pass

    def expire(self) -> None:
        raise AssertionError


async def get_once() -> None:
    async with serving(repeating()) as server:
        pool = Pool()
        assert await get(pool, Target("http", "127.0.0.1", server.port)) == b"ok"
        pool.close()
        await server.all_ended()


@EACH_BACKEND
@pytest.mark.usefixtures("reader_tasks")
class TestEventLoops:
    def test_it_does_not_keep_its_event_loop(self, backend: Any) -> None:
        loops: list[weakref.ref[Any]] = []

        async def main() -> None:
            loops.append(weakref.ref(current_token().native_token))
            await get_once()

        run(backend, main)
        gc.collect()
        assert loops[0]() is None

    def test_the_end_of_the_event_loop_with_connections_open(self, backend: Any) -> None:
        """They can still be closed, and nothing is said of it."""
        made: list[Watched] = []

        async def main() -> None:
            made.extend(Watched() for _ in range(2))
            made[0].connection._watch(READ | WRITE)
            reactor = current_reactor()
            reactor.add_deadline(reactor.clock() + 1000, Never())
            made[0].other.send(b"data")
            await made[0].listening.until(b"data")

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run(backend, main)
            reactor = made[0].connection.reactor
            for each in made:
                each.close()
                assert each.connection.fileno() == -1
            assert reactor.closed
            del each, reactor
            made.clear()
            gc.collect()

    def test_two_in_two_threads(self, backend: Any) -> None:
        reactors: list[Reactor] = []
        both = threading.Barrier(2, timeout=10)
        failures: list[BaseException] = []

        async def main() -> None:
            with anyio.fail_after(10), watched() as one:
                reactors.append(one.connection.reactor)
                await anyio.to_thread.run_sync(both.wait)
                for number in range(1, 100):
                    one.other.send(b"x")
                    await one.listening.until(b"x" * number)
                await get_once()
                await anyio.to_thread.run_sync(both.wait)

        def thread() -> None:
            try:
                run(backend, main)
            except BaseException as error:  # noqa: BLE001 - it fails the test
                failures.append(error)

        threads = [threading.Thread(target=thread) for _ in range(2)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert not failures
        assert len(set(map(id, reactors))) == 2


def run(backend: Any, main: Any) -> None:
    name, options = backend
    anyio.run(main, backend=name, backend_options=options)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
class TestForks:
    async def test_a_child_leaves_the_parents_selector_alone(self) -> None:
        with watched() as one, watched() as other:
            await checkpoint()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of other threads
                child = os.fork()
            if not child:
                try:
                    one.connection.pause()
                    one.connection.close()
                    other.connection.close()
                    done = one.connection.reactor.closed and one.connection.reactor.is_foreign
                finally:
                    os._exit(0 if done else 1)
            _, status = await anyio.to_thread.run_sync(os.waitpid, child, 0)
            assert status == 0
            for each in (one, other):
                each.other.send(b"data")
                await each.listening.until(b"data")
            assert not one.connection.reactor.is_foreign

    async def test_a_child_gets_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with watched() as one:
            parents = one.connection.reactor
            with monkeypatch.context() as patch:
                patch.setattr(os, "getpid", lambda: -1)
                assert parents.is_foreign
                with watched() as other:
                    assert other.connection.reactor is not parents
                    other.other.send(b"data")
                    await other.listening.until(b"data")
            assert not parents.closed


class TestFairness:
    async def test_a_flood_gets_a_few_milliseconds_a_turn(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of 200 connections, none is read again before all others had their turn."""
        time, reads, now = 0.0, list[int](), 0.0

        def monotonic() -> float:
            return time

        monkeypatch.setattr(_reactor, "monotonic", monotonic)
        flooded = [Watched() for _ in range(200)]
        reactor = current_reactor()

        def read(number: int) -> Any:
            def recv(_: int) -> bytes:
                nonlocal time
                time += 0.0002  # for 64 KiB, parsed, decoded and handed over
                reads.append(number)
                return b"x"

            return recv

        for number, each in enumerate(flooded):
            each.connection._recv = read(number)
            each.other.send(b"more than is read")
        longest = 0.0
        for turn in range(1, 100):
            now = time
            reactor.poll()
            longest = max(longest, time - now)
            if turn in (20, 40):
                assert len(set(reads)) == 200 or len(reads) < 200
        assert longest <= 0.0023
        assert len(reads) > 400
        for start in range(0, len(reads) - 200, 200):
            assert len(set(reads[start : start + 200])) == 200
        for each in flooded:
            each.close()

    async def test_what_was_fetched_and_is_closed_meanwhile(self) -> None:
        """One receiver closes the connections whose events come next."""
        all_of_them = [Watched() for _ in range(5)]
        told: list[Watched] = []

        def close_others(one: Watched) -> Any:
            def feed(_: bytes) -> None:
                told.append(one)
                for each in all_of_them:
                    if each is not one:
                        each.close()

            return feed

        for each in all_of_them:
            each.listening.feed = close_others(each)  # type: ignore[method-assign]
            each.other.send(b"data")
        with anyio.fail_after(5):
            while not told:
                await checkpoint()
        for _ in range(5):
            await checkpoint()
        (one,) = told
        one.close()
        assert running_reactor() is None

    async def test_the_last_connection_is_closed_by_its_receiver(self) -> None:
        both = [Watched() for _ in range(2)]
        closed: list[bytes] = []

        def close(data: bytes) -> None:
            closed.append(data)
            for each in both:
                each.close()

        for each in both:
            each.listening.feed = close  # type: ignore[method-assign]
            each.other.send(b"data")
        while not closed:
            await checkpoint()
        for _ in range(5):
            await checkpoint()
        assert closed == [b"data"]
        assert running_reactor() is None

    async def test_a_turn_that_ends_with_the_rest_closed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Events that were fetched do not keep connections that are gone."""
        time = iter(range(1000))
        monkeypatch.setattr(_reactor, "monotonic", lambda: next(time))
        three = [Watched() for _ in range(3)]
        reactor = current_reactor()
        for each in three:
            each.other.send(b"data")
        reactor.poll()
        assert sum(bool(each.listening.told) for each in three) == 1
        assert len(reactor._ready) == 2
        for each in three:
            each.close()
        assert reactor.closed
        assert reactor._ready == []


@pytest.mark.usefixtures("reader_tasks")
class TestPausing:
    async def test_a_paused_connection_is_in_no_selector(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A selector goes on reporting a hang-up, whatever is asked of it: the loop would spin."""
        polls = 0
        for name in ("poll", "_dispatch"):
            real = getattr(Reactor, name)

            def counted(*args: Any, real: Any = real) -> None:
                nonlocal polls
                polls += 1
                real(*args)

            monkeypatch.setattr(Reactor, name, counted)
        with watched() as one, watched() as other:
            other.other.send(b"data")
            await other.listening.until(b"data")
            one.connection.pause()
            await checkpoint()
            before = polls
            one.other.close()
            for _ in range(20):
                await checkpoint()
            assert polls == before
            one.connection.resume()
            await one.listening.until_over()


class TestWaitingToConnect:
    @pytest.mark.usefixtures("reader_tasks")
    async def test_cancelled_it_leaves_nothing(self) -> None:
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
                await anyio.wait_all_tasks_blocked()
                other.recv(10_000_000)
            assert reactor.closed

    async def test_a_selector_that_is_full(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Full(selectors.DefaultSelector):
            def register(self, fd: Any, events: int, data: Any = None) -> Any:
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(_reactor, "DefaultSelector", Full)
        ours, other = socket.socketpair()
        with ours, other:
            reactor = current_reactor()
            with pytest.raises(OSError, match="No space left"):
                await reactor.wait_writable(ours.fileno())
            assert reactor.closed
            assert reactor._watched == {}

    async def test_it_is_a_checkpoint(self) -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await current_reactor().wait_writable(-1)
        assert scope.cancelled_caught


async def test_the_pools_connection_is_watched_by_it() -> None:
    async with serving(black_hole) as server:
        pool = Pool()
        connection = await pool.acquire(Target("http", "127.0.0.1", server.port), no_stage)
        assert connection.reactor is running_reactor()
        pool.discard(connection)
        assert running_reactor() is None
        await server.all_ended()
