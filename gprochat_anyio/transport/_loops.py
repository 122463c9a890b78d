"""The reactor's interface to event loops: asyncio (including uvloop) and Trio.

Each adapter has its own module, which is imported only while its event loop is running.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from anyio.lowlevel import current_token


class Signal(Protocol):
    """A wake-up for one waiting task. It is not remembered: check the condition before waiting."""

    async def wait(self) -> None:
        """Wait until the next `set`. Cancellation has no other effect."""
        ...

    def set(self) -> None:
        """Wake the waiting task, if any."""
        ...


class EventLoop(Protocol):
    """The operations of an event loop that a reactor uses."""

    clock: Callable[[], float]
    """Return the event loop's time, in seconds."""

    def signal(self) -> Signal:
        """Create a signal."""
        ...

    async def checkpoint(self) -> None:
        """Let other tasks run, and check for cancellation."""
        ...

    async def checkpoint_if_cancelled(self) -> None:
        """Check for cancellation."""
        ...

    def is_running(self) -> bool:
        """Return True if this event loop is running in the current thread."""
        ...

    def start(self, fd: int | None, poll: Callable[[], None], expire: Callable[[], None]) -> None:
        """Start to call `poll` while the descriptor is readable, and `expire` at the time set by
        `arm`."""
        ...

    def arm(self, at: float) -> None:
        """Set the time for `expire`. It may still be called at an earlier time set before."""
        ...

    def stop(self) -> None:
        """Stop calling. The caller closes the descriptor afterwards."""
        ...

    def spawn(
        self,
        function: Callable[[], Coroutine[Any, Any, None]],
        name: str,
        context: contextvars.Context | None = None,
    ) -> Callable[[], object]:
        """Start a background task, which must not raise. Return a function that cancels it.

        :param context: The task's context. `None` for an empty context.
        """
        ...

    def call_soon(self, function: Callable[[], None]) -> None:
        """Schedule a function, which must not raise, for the event loop's next turn.

        This may be called from any thread or finalizer. After the event loop has ended, the
        function may never be called.
        """
        ...

    def notify_closing(self, fd: int) -> None:
        """Wake the tasks that wait for a descriptor with AnyIO, before it is closed."""
        ...


def current_loop() -> EventLoop:
    """Return the running event loop."""
    native: Any = current_token().native_token
    if hasattr(native, "call_at"):
        from ._asyncio_loop import AsyncioLoop  # noqa: PLC0415

        return AsyncioLoop(native)
    from ._trio_loop import TrioLoop  # noqa: PLC0415

    return TrioLoop()
