"""Connections and their receivers: what arrives is pushed from the one into the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ._reactor import Reactor

if TYPE_CHECKING:
    from ._target import Target

READ_SIZE = 64 * 1024
"""The most that one read takes from a socket, in bytes."""


class Receiver(Protocol):
    """Takes what arrives on a connection. Nothing here may wait."""

    def feed(self, data: bytes) -> None:
        """Take bytes of the peer's."""
        ...

    def lost(self, error: Exception | None) -> None:
        """Take note of the end: an orderly one, or one by an error."""
        ...

    def broken(self, error: BaseException) -> None:
        """Take note that what was read is lost: `Unreadable`, or an exception of a test's site."""
        ...


class Connection(Protocol):
    """A connection to an origin. The pool keeps it between two exchanges."""

    reactor: Reactor
    target: Target
    reused: bool
    """True if it has served an earlier exchange."""
    expires: float
    """The time at which an idle connection is given up."""

    @property
    def receiver(self) -> Receiver | None:
        """Takes what arrives: the exchange that uses the connection."""
        ...

    @receiver.setter
    def receiver(self, receiver: Receiver | None) -> None: ...

    @property
    def on_unsolicited(self) -> Callable[[Any], None] | None:
        """Called if the peer sends or ends something between two exchanges."""
        ...

    @on_unsolicited.setter
    def on_unsolicited(self, callback: Callable[[Any], None] | None) -> None: ...

    @property
    def closed(self) -> bool:
        """True once it is closed."""
        ...

    @property
    def paused(self) -> bool:
        """True while nothing is read."""
        ...

    @property
    def is_sending(self) -> bool:
        """True while data waits for room in the socket."""
        ...

    def is_quiet(self) -> bool:
        """Return True if the idle connection is open, and nothing has arrived."""
        ...

    async def send(self, data: bytes) -> None:
        """Send data; returns early if the connection breaks, which the receiver is told.

        Cancelled, the rest is not sent, which spoils the connection.
        """
        ...

    def look(self) -> None:
        """Push what has arrived already."""
        ...

    def pause(self) -> None:
        """Stop reading."""
        ...

    def resume(self) -> None:
        """Read again."""
        ...

    def close(self) -> None:
        """Close at once, in any task or callback of the event loop."""
        ...

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 without one, or once it is closed."""
        ...
