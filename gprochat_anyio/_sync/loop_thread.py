"""An event loop in its own thread, for synchronous callers."""

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
"""The event loop's library."""

_TICK = 0.2 if sys.platform == "win32" else None
# On Windows, Ctrl-C does not end a wait without a limit.

_GRACE = 1.0  # seconds to wait for the thread after the loop has ended; name lookups delay it


class LoopThread:
    """An event loop in a thread that runs async functions for other threads. The first call starts
    it.

    :param resource: An async context manager, which is entered when the loop starts and left in the
        loop after all functions have been cancelled.
    """

    class Unusable(RuntimeError):  # noqa: N818 - callers see a RuntimeError
        """The loop is closed, or belongs to another process."""

    def __init__(
        self, resource: AbstractAsyncContextManager[object], *, backend: Backend, name: str
    ) -> None:
        if backend not in get_args(Backend):
            raise ValueError("backend must be 'asyncio' or 'trio'")
        self._resource = resource
        self._backend = backend
        self._name = name
        # Prevents submissions to a loop that is about to end. Reentrant, because a signal handler
        # may run in a thread that holds it.
        self._lock = threading.RLock()
        self._begun = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pid: int | None = None  # of the process that started the thread
        self._ready: Future[BlockingPortal] = Future()
        self._ended = threading.Event()
        self._closed = self._stopping = False
        self._stop: anyio.Event
        self.tasks: TaskGroup
        """Task group for tasks in the loop that outlive a call."""

    def run(self, func: Callable[[], Awaitable[_T]]) -> _T:
        """Run an async function in the loop. Return its result, or raise its exception.

        An exception in the waiting thread, such as Ctrl-C, cancels the function and is raised once
        it has cleaned up. A second one is raised immediately.

        :raises RuntimeError: If the loop is or gets closed, or this is a forked process or the
            loop's own thread.
        """
        call = _Call(func)
        handled = sys.exception()
        try:
            future = self._start(call.run)
            while not future.done():
                wait((future,), _TICK)
        except BaseException as error:
            with suppress(Exception):  # a call that could not start needs no cancellation
                self._start(call.cancel).result()
            error.__context__ = handled  # not the exception that the portal was handling at Ctrl-C
            raise
        try:
            return future.result()
        except CancelledError:
            raise self._unusable() from None
        except GPROChatError as error:
            strip_traceback(error)
            raise
        finally:
            del future  # breaks the cycle of the future, its error, the traceback and this frame

    def close(self) -> None:
        """Cancel all functions, and wait until their connections are closed. Call this in any
        thread.

        :raises RuntimeError: If called in the loop's own thread.
        """
        if self._is_lost():
            return
        self._check_thread()
        with self._lock:
            if not self._stopping:
                with suppress(Exception):  # the loop could not start, or has failed
                    self._submit(self._end)
            self._closed = self._stopping = True
        if self._thread is not None:  # it was started
            while not self._ended.is_set():
                self._ended.wait(_TICK)
            self._thread.join(_GRACE)
        atexit.unregister(self._at_exit)

    def in_its_thread(self) -> bool:
        """Return True if called in the loop's thread, which cannot wait for the loop."""
        return threading.current_thread() is self._thread

    def abandon(self) -> None:
        """Close without waiting, and warn. The garbage collector calls this, in any thread."""
        if self._is_open():
            with suppress(
                RuntimeError
            ):  # the interpreter is shutting down and cannot start a thread
                threading.Thread(target=self.close, daemon=True).start()
            self._warn()

    def _at_exit(self) -> None:
        # The thread will be stopped, and the system will close its connections. Suspended
        # generators are closed later, and must not wait for the thread then.
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
        """Start the thread. This may be repeated if Ctrl-C interrupted it, or starting it
        failed."""
        self._pid = os.getpid()
        atexit.register(self._at_exit)
        threading.Thread(
            target=self._main, name=f"gprochat_anyio {self._name}", daemon=True
        ).start()

    def _is_lost(self) -> bool:
        """Return True once the loop's thread has ended, so that waiting for it would never end."""
        return self._is_foreign() or sys.is_finalizing()

    def _is_foreign(self) -> bool:
        return self._pid not in (None, os.getpid())

    def _check_thread(self) -> None:
        if self.in_its_thread():
            raise RuntimeError(f"a {self._name} cannot be used in its own event loop's thread")

    def _unusable(self) -> LoopThread.Unusable:
        if self._is_foreign():
            return self.Unusable(
                f"this {self._name} was used before the process forked, and its event loop is the "
                "parent's; create a new one in the child"
            )
        if sys.is_finalizing():
            return self.Unusable(
                f"the interpreter is shutting down, which has stopped the loop of this {self._name}"
            )
        return self.Unusable(
            f"this {self._name} is closed; create a new one, or use it before close() is called or"
            " its `with` block ends"
        )

    def _main(self) -> None:
        if not self._begun.acquire(blocking=False):
            return  # a thread that was started before runs the loop
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
        self._ended.set()  # callers need not wait for the rest of the loop's shutdown

    async def _end(self) -> None:
        self._stop.set()


class _Call(Generic[_T]):
    """A call of an async function, which can be cancelled and waited for."""

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
