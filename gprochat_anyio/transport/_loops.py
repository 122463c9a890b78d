"""The event loops, as the reactor needs them: asyncio (uvloop included) and Trio.

Each is a module of its own, which is imported where that event loop is running already.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from anyio.lowlevel import current_token


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
        function: Callable[[], Coroutine[Any, Any, None]],
        name: str,
        context: contextvars.Context | None = None,
    ) -> Callable[[], object]:
        """Start a background task, which must not raise, and return what cancels it.

        :param context: the task's own; an empty one unless given
        """
        ...

    def call_soon(self, function: Callable[[], None]) -> None:
        """Call a function, which must not raise, in the next turn: from any thread or finalizer.

        Once the event loop has ended, it may never be called.
        """
        ...

    def notify_closing(self, fd: int) -> None:
        """Wake the tasks that wait for a descriptor by AnyIO: it is about to be closed."""
        ...


def current_loop() -> EventLoop:
    """Return the running event loop."""
    native: Any = current_token().native_token
    if hasattr(native, "call_at"):
        from ._asyncio_loop import AsyncioLoop  # noqa: PLC0415

        return AsyncioLoop(native)
    from ._trio_loop import TrioLoop  # noqa: PLC0415

    return TrioLoop()
