"""The reactor's adapter for asyncio and uvloop. Imported only while such a loop is running."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

# Callbacks and tasks run in copies of this context. The context of the first caller would be kept
# alive and shared with every later caller. In a callback, AnyIO detects the event loop only by
# sniffio, if that is installed.
_context = contextvars.Context()
with suppress(ImportError):
    from sniffio import current_async_library_cvar

    _context.run(current_async_library_cvar.set, "asyncio")


class AsyncioLoop:
    """Adapter for asyncio's event loop, or one with its interface."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.clock: Callable[[], float] = loop.time
        self.checkpoint = partial(asyncio.sleep, 0)
        self.checkpoint_if_cancelled = checkpoint_if_cancelled
        self._loop = loop
        self._fd: int | None = None
        self._timer: asyncio.Handle | None = None
        self._at = inf  # the timer's time, which uvloop's handle does not know once it is overdue
        self._expire: Callable[[], None]

    def is_running(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def start(self, fd: int | None, poll: Callable[[], None], expire: Callable[[], None]) -> None:
        self._fd, self._expire = fd, expire
        if fd is not None:
            _context.copy().run(self._loop.add_reader, fd, poll)

    def arm(self, at: float) -> None:
        if self._timer is not None:
            if self._at <= at < inf:
                return
            self._timer.cancel()
            self._timer = None
        if at < inf:
            self._at = at
            self._timer = self._loop.call_at(at, self._fire, context=_context.copy())

    def stop(self) -> None:
        del self._expire  # it refers to the reactor, which refers to this
        if self._timer is not None:
            self._timer.cancel()
        if self._fd is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._fd)

    def spawn(
        self,
        function: Callable[[], Coroutine[Any, Any, None]],
        name: str,
        context: contextvars.Context | None = None,
    ) -> Callable[[], object]:
        context = _context.copy() if context is None else context
        return self._loop.create_task(function(), name=name, context=context).cancel

    def call_soon(self, function: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe(function, context=_context.copy())

    def notify_closing(self, fd: int) -> None:
        _context.copy().run(anyio.notify_closing, fd)

    def signal(self) -> AsyncioSignal:
        return AsyncioSignal(self._loop)

    def _fire(self) -> None:
        self._timer = None
        self._expire()


class AsyncioSignal:
    """A signal that uses one future per wait."""

    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        # AnyIO would not cancel a task that is woken in the turn of the cancellation.
        await checkpoint_if_cancelled()
        self._future = future = self._loop.create_future()
        try:
            await future
        finally:
            self._future = None

    def set(self) -> None:
        future = self._future
        if future is not None and not future.done():
            future.set_result(None)
