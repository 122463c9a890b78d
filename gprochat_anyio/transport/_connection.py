"""The interfaces of connections, and of the receivers to which they push incoming data."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ._reactor import Reactor

if TYPE_CHECKING:
    from ._target import Target

READ_SIZE = 64 * 1024
"""Maximum size of one read from a socket, in bytes."""


class Receiver(Protocol):
    """Receiver of a connection's incoming data. No method may wait."""

    def feed(self, data: bytes) -> None:
        """Process bytes from the peer."""
        ...

    def lost(self, error: Exception | None) -> None:
        """Handle the end of the connection. `error` is `None` if it was orderly."""
        ...

    def broken(self, error: BaseException) -> None:
        """Handle the loss of data that was read. `error` is `Unreadable`, or the exception of a
        test's site."""
        ...


class Connection(Protocol):
    """A connection to an origin. Between exchanges, the pool keeps it."""

    reactor: Reactor
    target: Target
    reused: bool
    """True if it has served an earlier exchange."""
    expires: float
    """The time until which the idle connection may be reused."""

    @property
    def receiver(self) -> Receiver | None:
        """The receiver of incoming data: the exchange that uses the connection."""
        ...

    @receiver.setter
    def receiver(self, receiver: Receiver | None) -> None: ...

    @property
    def on_unsolicited(self) -> Callable[[Any], None] | None:
        """Callback for data, or the end of the connection, between two exchanges."""
        ...

    @on_unsolicited.setter
    def on_unsolicited(self, callback: Callable[[Any], None] | None) -> None: ...

    @property
    def closed(self) -> bool:
        """True once the connection is closed."""
        ...

    @property
    def paused(self) -> bool:
        """True while reading is paused."""
        ...

    @property
    def is_sending(self) -> bool:
        """True while data is waiting for space in the socket's buffer."""
        ...

    def is_quiet(self) -> bool:
        """Return True if the idle connection is open and has received nothing."""
        ...

    async def send(self, data: bytes) -> None:
        """Send data. Return early if the connection breaks; its receiver is notified.

        If this is cancelled, the rest is not sent and the connection cannot be reused.
        """
        ...

    def look(self) -> None:
        """Push data that has already arrived to the receiver."""
        ...

    def pause(self) -> None:
        """Pause reading."""
        ...

    def resume(self) -> None:
        """Resume reading."""
        ...

    def close(self) -> None:
        """Close immediately. Safe in any task or callback of the event loop."""
        ...

    def fileno(self) -> int:
        """Return the socket's file descriptor, or -1 if there is none or it is closed."""
        ...
