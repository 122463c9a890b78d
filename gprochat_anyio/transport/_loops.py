"""The event loops, as the reactor needs them: asyncio (uvloop included) and Trio.

The only module of the transport that knows one from the other. It uses their public functions; each
of them is imported only where it is running already.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from typing import Any, Protocol

from anyio.lowlevel import checkpoint_if_cancelled, current_token


class Signal(Protocol):
    """Wakes the one task that waits for it. It remembers nothing: look before waiting."""

    async def wait(self) -> None:
        """Wait until the next `set`. Cancelled, it has no effect."""
        ...

    def set(self) -> None:
        """Wake the waiting task, if any."""
        ...


class EventLoop(Protocol):
    """What a reactor asks of an event loop."""

    clock: Callable[[], float]
    """The time, in seconds."""

    def signal(self) -> Signal:
        """Make a signal."""
        ...

    async def checkpoint(self) -> None:
        """Let other tasks run, and heed cancellation."""
        ...

    async def checkpoint_if_cancelled(self) -> None:
        """Heed cancellation."""
        ...

    def is_running(self) -> bool:
        """Return True if this is the event loop that is running in this thread."""
        ...

    def start(self, fd: int | None, poll: Callable[[], None], expire: Callable[[], None]) -> None:
        """Call `poll` whenever the descriptor is readable, and `expire` at the time of `arm`."""
        ...

    def arm(self, at: float) -> None:
        """Call `expire` at this time, or soon after an earlier one."""
        ...

    def stop(self) -> None:
        """Stop calling. The descriptor is still open, and is closed next."""
        ...

    def spawn(
        self,
        function: Callable[[], Awaitable[None]],
        name: str,
        context: contextvars.Context | None = None,
    ) -> Callable[[], None]:
        """Start a background task, which must not raise, and return what cancels it.

        :param context: the task's own; an empty one unless given
        """
        ...


def current_loop() -> EventLoop:
    """Return the running event loop."""
    native: Any = current_token().native_token
    return AsyncioLoop(native) if hasattr(native, "call_at") else TrioLoop()


class AsyncioLoop:
    """asyncio's event loop, or one with its interface."""

    def __init__(self, loop: Any) -> None:
        from asyncio import get_running_loop, sleep  # noqa: PLC0415 - it is running

        self.clock: Callable[[], float] = loop.time
        self._loop = loop
        self._get_running_loop = get_running_loop
        self.checkpoint = partial(sleep, 0)
        self.checkpoint_if_cancelled = checkpoint_if_cancelled
        self._fd: int | None = None
        self._timer: Any = None
        self._expire: Callable[[], None]
        # not that of whoever came first: it would be kept, and seen by all
        self._context = contextvars.Context()

    def is_running(self) -> bool:
        try:
            return self._get_running_loop() is self._loop
        except RuntimeError:
            return False

    def start(self, fd: int | None, poll: Callable[[], None], expire: Callable[[], None]) -> None:
        self._fd, self._expire = fd, expire
        if fd is not None:
            self._context.run(self._loop.add_reader, fd, poll)

    def arm(self, at: float) -> None:
        timer = self._timer
        if timer is not None:
            if timer.when() <= at < inf:
                return
            timer.cancel()
            self._timer = None
        if at < inf:
            self._timer = self._loop.call_at(at, self._fire, context=self._context)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._fd is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._fd)

    def spawn(
        self,
        function: Callable[[], Awaitable[None]],
        name: str,
        context: contextvars.Context | None = None,
    ) -> Callable[[], None]:
        context = contextvars.Context() if context is None else context
        task = self._loop.create_task(function(), name=name, context=context)
        return task.cancel  # type: ignore[no-any-return]

    def signal(self) -> Signal:
        return _AsyncioSignal(self._loop)

    def _fire(self) -> None:
        self._timer = None
        self._expire()


class _AsyncioSignal:
    __slots__ = ("_future", "_loop")

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._future: Any = None

    async def wait(self) -> None:
        self._future = future = self._loop.create_future()
        try:
            await future
        finally:
            self._future = None

    def set(self) -> None:
        future = self._future
        if future is not None and not future.done():
            future.set_result(None)


class TrioLoop:
    """Trio's run. One system task watches the descriptor and the time."""

    def __init__(self) -> None:
        import trio  # noqa: PLC0415 - it is running

        self.clock: Callable[[], float] = trio.current_time
        self._trio = trio
        self._fd: int | None = None
        self._poll: Callable[[], None]
        self._expire: Callable[[], None]
        self._at = inf
        self._scope: Any = None
        self._stopped = False
        self._low = trio.lowlevel
        self.checkpoint = trio.lowlevel.checkpoint
        self.checkpoint_if_cancelled = trio.lowlevel.checkpoint_if_cancelled
        self._token = trio.lowlevel.current_trio_token()

    def is_running(self) -> bool:
        try:
            return self._low.current_trio_token() is self._token
        except RuntimeError:
            return False

    def start(self, fd: int | None, poll: Callable[[], None], expire: Callable[[], None]) -> None:
        self._fd, self._poll, self._expire = fd, poll, expire
        self._low.spawn_system_task(
            self._run, name="gprochat_anyio reactor", context=contextvars.Context()
        )

    def arm(self, at: float) -> None:
        if at < self._at or at == inf:
            self._at = at
            if self._scope is not None:
                self._scope.deadline = at

    def stop(self) -> None:
        self._stopped = True
        if self._scope is None:  # the task has not begun, or is expiring deadlines
            return
        if self._fd is None:
            self._scope.cancel()
        else:
            # not a cancellation: that touches the descriptor, which may be another's by then
            self._low.notify_closing(self._fd)

    def spawn(
        self,
        function: Callable[[], Awaitable[None]],
        name: str,
        context: contextvars.Context | None = None,
    ) -> Callable[[], None]:
        scope = self._trio.CancelScope()

        async def run() -> None:
            with scope:
                await function()

        context = contextvars.Context() if context is None else context
        self._low.spawn_system_task(run, name=name, context=context)
        return scope.cancel

    def signal(self) -> Signal:
        return _TrioSignal(self._low)

    async def _run(self) -> None:
        try:
            while not self._stopped:
                with self._trio.CancelScope(deadline=self._at) as self._scope:
                    await self._watch()
                self._scope = None
                self._at = inf
                if not self._stopped:
                    self._expire()
        finally:
            self._stopped = True  # the run may be over, with connections open
            self._scope = None

    async def _watch(self) -> None:
        if self._fd is None:
            await self._trio.sleep_forever()
        try:
            while not self._stopped:
                await self._low.wait_readable(self._fd)
                if not self._stopped:  # it may have been, since the descriptor was readable
                    self._poll()
        except self._trio.ClosedResourceError:
            return


class _TrioSignal:
    __slots__ = ("_low", "_task")

    def __init__(self, low: Any) -> None:
        self._low = low
        self._task: Any = None

    async def wait(self) -> None:
        self._task = self._low.current_task()
        await self._low.wait_task_rescheduled(self._abort)

    def set(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            self._low.reschedule(task)

    def _abort(self, _: Any) -> Any:
        self._task = None
        return self._low.Abort.SUCCEEDED
