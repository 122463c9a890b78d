"""Reactors and their event loops: the end of a loop, two loops at a time, and forks."""

from __future__ import annotations

import gc
import os
import threading
import warnings
import weakref
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint, current_token
from support.loops import LOOPS

from gprochat_anyio.transport._reactor import READ, WRITE, Reactor, current_reactor

from .watching import Never, Watched, get_once, watched

EACH_BACKEND = pytest.mark.parametrize("backend", LOOPS)


async def test_a_signal_is_not_waited_for_in_a_cancelled_scope() -> None:
    """On asyncio, a task that is woken in the turn of its cancellation would notice nothing."""

    async def wake() -> None:
        signal.set()

    with watched() as one:
        signal = one.connection.reactor.signal()
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wake)
            with scope:
                scope.cancel()
                await signal.wait()
    assert scope.cancelled_caught


@EACH_BACKEND
@pytest.mark.usefixtures("reader_tasks")
class TestEventLoops:
    @pytest.mark.slow
    def test_it_does_not_keep_its_event_loop_alive(self, backend: Any) -> None:
        loops: list[weakref.ref[Any]] = []

        async def main() -> None:
            loops.append(weakref.ref(current_token().native_token))
            await get_once()

        run(backend, main)
        gc.collect()
        assert loops[0]() is None

    @pytest.mark.slow
    def test_the_end_of_the_event_loop_with_connections_open(self, backend: Any) -> None:
        """The connections can still be closed, without a warning."""
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
            del reactor
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="requires os.fork")
class TestForks:
    async def test_a_child_leaves_the_parents_selector_alone(self) -> None:
        with watched() as one, watched() as other:
            await checkpoint()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about other threads
                child = os.fork()
            if not child:
                done = False
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

    async def test_a_child_that_continues_leaves_it_alone_too(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`os.getpid` simulates a child process."""
        with watched() as one:
            reactor = one.connection.reactor
            with monkeypatch.context() as patch:
                patch.setattr(os, "getpid", lambda: -1)
                reactor.watch(one.connection.fileno(), READ, 0, one.connection._on_ready)
                reactor.watch(one.connection.fileno(), READ, WRITE, one.connection._on_ready)
            one.other.send(b"data")
            await one.listening.until(b"data")

    async def test_the_last_connection_of_a_child(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The child closes the selector's descriptor. The event loop belongs to the parent."""
        reactor = current_reactor()
        reactor.join()
        calls: list[str] = []
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: -1)
            patch.setattr(reactor._loop, "stop", lambda: calls.append("stop"))
            patch.setattr(reactor._selector, "close", lambda: calls.append("close"))
            reactor.leave()
        assert calls == ["close"]
        assert reactor.closed
        reactor._loop.stop()  # because this is not a child
        reactor._selector.close()

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
