"""The server of a connection, as the connection sees it: limits and callbacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import ssl

    import h11
    from starlette.types import Scope

    from gprochat_anyio._accepting import Address
    from gprochat_anyio.transport._reactor import Reactor
    from gprochat_anyio.transport._target import Target

    from ._asgi_cycle import AsgiCycle
    from ._served_connection import ServedConnection


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Limits on a client's use of its connection, in seconds and bytes."""

    idle_seconds: float = 5
    """Maximum wait for a request, as on the original site, and for a TLS handshake."""
    head_seconds: float = 5
    """Maximum time from a head's first byte to its last."""
    body_seconds: float = 30
    """Maximum wait for a body, in addition to the time that a slow client takes to send it."""
    unread_seconds: float = 60
    """Maximum time for the client to read 64 KiB."""
    lingering_seconds: float = 1
    """Maximum wait for the client to close the connection after the last response."""
    pipelined_bytes: int = 64 * 1024
    """Maximum size of pipelined requests. The server closes a connection that exceeds it."""

    @property
    def shortest(self) -> float:
        """The shortest of the times that a connection spends receiving."""
        return min(self.idle_seconds, self.head_seconds, self.body_seconds)


class ConnectionOwner(Protocol):
    """The server of a connection, as the connection sees it."""

    limits: ServerLimits
    origin: Target
    ssl_context: ssl.SSLContext | None
    reactor: Reactor
    draining: bool
    """True if connections close after the current response."""

    def start(self, cycle: AsgiCycle) -> None:
        """Run a request in a task of its own."""
        ...

    def scope_of(self, request: h11.Request, client: Address) -> Scope:
        """Return a request's ASGI scope."""
        ...

    def closed(self, connection: ServedConnection) -> None:
        """Forget a connection."""
        ...
