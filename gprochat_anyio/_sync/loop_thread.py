"""An event loop in a thread of its own, for callers without one, or in the middle of theirs."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import warnings
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future, wait
from contextlib import AbstractAsyncContextManager, suppress
from typing import Generic, Literal, TypeVar, get_args

import anyio
from anyio.abc import TaskGroup
from anyio.from_thread import BlockingPortal

from gprochat_anyio._errors import GPROChatError
from gprochat_anyio._redaction import strip_traceback

_T = TypeVar("_T")

Backend = Literal["asyncio", "trio"]
"""Which event loop."""

_TICK = 0.2 if sys.platform == "win32" else None
# On Windows, Ctrl-C does not end a wait without a limit.

_GRACE = 1.0  # seconds to wait for the thread when all connections are closed; name lookups take it


class LoopThread:
    """Runs async functions for other threads, in one event loop. The loop starts at the first.

    :param resource: open while the loop runs; closed in it, when all that runs is cancelled
    """

    class Unusable(RuntimeError):  # noqa: N818 - it reaches callers as what it is based on
        """The loop is closed, or another process's."""

    def __init__(
        self, resource: AbstractAsyncContextManager[object], *, backend: Backend, name: str
    ) -> None:
        if backend not in get_args(Backend):
            raise ValueError("backend must be 'asyncio' or 'trio'")
        self._resource = resource
        self._backend = backend
        self._name = name
        # So that nothing is sent into a loop that is about to end. A signal's handler may call in
        # while its thread holds it.
        self._lock = threading.RLock()
        self._begun = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pid: int | None = None  # the thread's, once it was started
        self._ready: Future[BlockingPortal] = Future()
        self._ended = threading.Event()
        self._closed = self._stopping = False
        self._stop: anyio.Event
        self.tasks: TaskGroup
        """For tasks in the loop that outlive a call."""

    def run(self, func: Callable[[], Awaitable[_T]]) -> _T:
        """Run an async function, and return or raise what it does.

        An exception that comes meanwhile, as by Ctrl-C, cancels it, waits until it has cleaned
        up, and is raised then. If there is another one while that lasts, it is not waited for.

        :raises RuntimeError: if the loop is closed, or closes meanwhile; in a forked process; or
            in the loop's own thread
        """
        call = _Call(func)
        handled = sys.exception()
        try:
            future = self._start(call.run)
            while not future.done():
                wait((future,), _TICK)
        except BaseException as error:
            with suppress(Exception):  # what could not be started needs no cancelling
                self._start(call.cancel).result()
            error.__context__ = handled  # not what the portal was handling when Ctrl-C came
            raise
        try:
            return future.result()
        except CancelledError:
            raise self._unusable() from None
        except GPROChatError as error:
            strip_traceback(error)
            raise
        finally:
            del future  # it holds the error, whose traceback holds this frame

    def close(self) -> None:
        """Cancel what runs, and wait until its connections are closed; from any thread.

        :raises RuntimeError: in the loop's own thread
        """
        if self._is_lost():
            return
        self._check_thread()
        with self._lock:
            if not self._stopping:
                with suppress(Exception):  # the loop could not start, or broke
                    self._submit(self._end)
            self._closed = self._stopping = True
        if self._thread is not None:  # it could be started
            while not self._ended.is_set():
                self._ended.wait(_TICK)
            self._thread.join(_GRACE)
        atexit.unregister(self._at_exit)

    def in_its_thread(self) -> bool:
        """Whether the caller is in the loop's thread, where it can not wait for the loop."""
        return threading.current_thread() is self._thread

    def forsake(self) -> None:
        """Close without waiting, and warn: for the garbage collector, wherever that runs."""
        if self._is_open():
            with suppress(RuntimeError):  # the interpreter is ending, and starts no thread
                threading.Thread(target=self.close, daemon=True).start()
            self._warn()

    def _at_exit(self) -> None:
        # The thread will stop where it is, and the system close its connections. Generators that
        # wait at a `yield` are still to be closed, and must not wait for the thread then.
        if self._is_open():
            self._closed = True
            self._warn()

    def _is_open(self) -> bool:
        return not self._closed and self._pid == os.getpid()

    def _warn(self) -> None:
        warnings.warn(
            f"a {self._name} was not closed: use `with`, or call close()",
            ResourceWarning,
            stacklevel=3,
        )

    def _start(self, func: Callable[[], Awaitable[_T]]) -> Future[_T]:
        if self._is_lost():
            raise self._unusable()
        self._check_thread()
        with self._lock:
            if self._closed:
                raise self._unusable()
            return self._submit(func)

    def _submit(self, func: Callable[[], Awaitable[_T]]) -> Future[_T]:
        if not self._ready.done():
            self._begin()
        return self._ready.result().start_task_soon(func)

    def _begin(self) -> None:
        """Start the thread; once more, if Ctrl-C came here or the system had no thread to give."""
        self._pid = os.getpid()
        atexit.register(self._at_exit)
        threading.Thread(
            target=self._main, name=f"gprochat_anyio {self._name}", daemon=True
        ).start()

    def _is_lost(self) -> bool:
        """Whether nobody runs the loop any more: to wait for it would be for ever."""
        return self._is_foreign() or sys.is_finalizing()

    def _is_foreign(self) -> bool:
        return self._pid not in (None, os.getpid())

    def _check_thread(self) -> None:
        if self.in_its_thread():
            raise RuntimeError(f"a {self._name} can not be used in its own event loop's thread")

    def _unusable(self) -> LoopThread.Unusable:
        if self._is_foreign():
            return self.Unusable(
                f"this {self._name} was used before the process forked, and its event loop is the "
                "parent's; make a new one in the child"
            )
        if sys.is_finalizing():
            return self.Unusable(
                f"the interpreter is ending, and has stopped the event loop of this {self._name}"
            )
        return self.Unusable(f"this {self._name} is closed; make a new one")

    def _main(self) -> None:
        if not self._begun.acquire(blocking=False):
            return  # one that was started before has it
        self._thread = threading.current_thread()
        try:
            anyio.run(self._serve, backend=self._backend)
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)
        finally:
            self._ended.set()

    async def _serve(self) -> None:
        self._stop = anyio.Event()
        async with (
            self._resource,
            BlockingPortal() as portal,
            anyio.create_task_group() as self.tasks,
        ):
            self._ready.set_result(portal)
            await self._stop.wait()
            await portal.stop(cancel_remaining=True)
        self._ended.set()  # what else the loop does in the end, nobody needs to wait for

    async def _end(self) -> None:
        self._stop.set()


class _Call(Generic[_T]):
    """An async function that can be cancelled, and be waited for then."""

    def __init__(self, func: Callable[[], Awaitable[_T]]) -> None:
        self._func = func
        self._cancelled = False
        self._scope: anyio.CancelScope | None = None
        self._ended: anyio.Event

    async def run(self) -> _T:
        self._ended = anyio.Event()
        try:
            with anyio.CancelScope() as self._scope:
                if not self._cancelled:
                    return await self._func()
        finally:
            self._ended.set()
        raise CancelledError

    async def cancel(self) -> None:
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()
            await self._ended.wait()
