"""One client's connection to the server."""

from __future__ import annotations

import logging
import math
import socket
from enum import Enum, auto
from typing import Final

import h11

from gprochat_anyio._accepting import Address
from gprochat_anyio.transport._reactor import Deadline
from gprochat_anyio.transport._socket_connection import SocketConnection
from gprochat_anyio.transport._tls import TLSLayer

from ._asgi_cycle import AsgiCycle, ResponseHead
from ._connection_owner import ConnectionOwner
from ._http1 import Http1

_PIECE: Final = 64 * 1024
_SLOWEST_BODY: Final = 1000  # bytes per second

_log = logging.getLogger("gprochat_anyio.site")


class _Phase(Enum):
    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    PAUSED = auto()  # the application does not read the body
    RESPONSE = auto()
    LINGERING = auto()  # the last response has been sent


class ServedConnection:
    """One client's connection. The reactor feeds it; each request runs in a task of its own.

    :param accepted: The socket, which the connection closes.
    :raises OSError: If the client has already disconnected.
    """

    __slots__ = (
        "_client",
        "_connection",
        "_cycle",
        "_deadline",
        "_entry",
        "_http",
        "_left",
        "_owner",
        "_phase",
        "_sending_since",
    )

    def __init__(self, owner: ConnectionOwner, accepted: socket.socket, client: Address) -> None:
        self._owner = owner
        self._client = client
        self._http: Http1 | None = None  # created with the first byte: many connections stay idle
        self._cycle: AsgiCycle | None = None  # the current request
        layers = () if owner.ssl_context is None else (TLSLayer(owner.ssl_context, None),)
        self._connection = SocketConnection(accepted, layers, owner.origin, owner.reactor)
        self._connection.receiver = self
        self._sending_since = self._deadline = self._left = 0.0
        self._entry: Deadline | None = None
        self._phase = _Phase.RESPONSE
        self._enter(_Phase.IDLE)

    # Called by the connection

    def feed(self, data: bytes) -> None:
        """Handle data from the client."""
        if self._phase is _Phase.LINGERING:
            return
        if self._http is None:
            self._http = Http1()
        try:
            self._http.receive(data)
            if self._phase is _Phase.BODY:
                latest = self._owner.reactor.clock() + self._owner.limits.body_seconds
                self._deadline = min(self._deadline + len(data) / _SLOWEST_BODY, latest)
            self._advance(self._http)
        except Exception as error:  # noqa: BLE001 - it must not affect other connections
            # Its text and traceback may quote the request.
            _log.error("a connection failed: %s", type(error).__qualname__)
            self.close()

    def lost(self, error: Exception | None) -> None:  # noqa: ARG002 - it does not matter
        """Close the connection after the client has disconnected."""
        self.close()

    def broken(self, error: BaseException) -> None:  # noqa: ARG002
        """Close the connection after a defect."""
        self.close()

    # Called by the reactor

    def due(self, now: float) -> float:
        """Return the time of the next check of the deadline.

        It is never later than the end of a phase that begins meanwhile, so that phases need no
        timers. Only the last phase, which is shorter than the others, has its own.
        """
        limits = self._owner.limits
        deadline = self._deadline
        if self._connection.is_sending:
            deadline = self._sending_since + limits.unread_seconds
        is_last = self._phase is _Phase.LINGERING
        return min(deadline, now + (limits.lingering_seconds if is_last else limits.shortest))

    def look(self) -> None:
        """Handle data that arrived before the deadline."""
        self._connection.look()

    def expire(self) -> None:
        """Close the connection. A body that is too slow is refused with status 408."""
        self._entry = None
        if self._phase is _Phase.BODY and not self._connection.is_sending:
            self._refuse(408)
        else:
            self.close()

    # Called by the server

    def drain(self) -> None:
        """Close the connection immediately if it is idle, otherwise after the current response."""
        if self._cycle is None:
            self.close()

    def close(self) -> None:
        """Close the connection, and cancel its request unless the response is complete."""
        if self._connection.closed:
            return
        self._connection.close()
        self._drop_entry()
        if self._cycle is not None:
            self._cycle.abandon()
        self._owner.closed(self)

    # Called by the current request

    def ask_for_body(self) -> None:
        """Send 100 Continue if the client waits for it."""
        if self._http is not None and self._http.waits_for_continue:
            self._connection.write(self._http.continue_response())

    def body_read(self) -> None:
        """Resume receiving the body."""
        if self._phase is _Phase.PAUSED:
            self._phase = _Phase.BODY
            self._deadline = self._owner.reactor.clock() + self._left
            self._connection.resume()

    def encode(self, head: ResponseHead | None, body: bytes, *, last: bool) -> bytes:
        """Return the bytes of a part of the response."""
        assert self._http is not None
        parts = []
        if head is not None:
            seconds = None if self._owner.draining else self._owner.limits.idle_seconds
            parts.append(self._http.response(*head, keep_alive_seconds=seconds))
        if body:
            parts.append(self._http.body(body))
        if last:
            parts.append(self._http.end())
        return b"".join(parts)

    async def send(self, data: bytes) -> None:
        """Send a part of the response. Wait until the client reads."""
        if self._connection.is_sending:
            raise RuntimeError("another task is sending this response")
        try:
            for start in range(0, len(data), _PIECE):
                self._sending_since = self._owner.reactor.clock()
                await self._connection.send(data[start : start + _PIECE])
        except BaseException:
            self.close()  # some of it may have been sent
            raise

    def response_sent(self) -> None:
        """Continue with the next request, or close the connection if it is not persistent."""
        if self._connection.closed or self._http is None:
            return
        if self._owner.draining or not self._http.next_request():
            self._linger()
            return
        self._cycle = None
        self.feed(b"")

    def cycle_ended(self, cycle: AsgiCycle) -> None:
        """Close the connection if the response is incomplete."""
        if self._cycle is cycle and self._phase is not _Phase.LINGERING:
            self.close()

    def _advance(self, http: Http1) -> None:
        """Handle the received bytes, up to the end of the current request."""
        try:
            while (event := http.next_event()) is not None:
                if isinstance(event, h11.Request):
                    self._cycle = AsgiCycle(self._owner.scope_of(event, self._client), self)
                    self._owner.start(self._cycle)
                    continue
                assert self._cycle is not None
                if isinstance(event, h11.Data):
                    self._cycle.feed(event.data)
                else:
                    self._cycle.end_body()
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint)
            return
        cycle = self._cycle
        if cycle is None:
            self._enter(_Phase.HEAD if http.pending else _Phase.IDLE)
        elif not cycle.received:
            self._enter(_Phase.BODY)
            if cycle.is_full:
                self._left = self._deadline - self._owner.reactor.clock()
                self._enter(_Phase.PAUSED)
                self._connection.pause()
        elif http.pending > self._owner.limits.pipelined_bytes:
            self.close()
        else:
            self._enter(_Phase.RESPONSE)

    def _enter(self, phase: _Phase) -> None:
        """Enter a phase, and set its deadline."""
        if phase is self._phase:
            return
        self._phase = phase
        limits = self._owner.limits
        now = self._owner.reactor.clock()
        match phase:
            case _Phase.IDLE:
                self._deadline = now + limits.idle_seconds
            case _Phase.HEAD:
                self._deadline = now + limits.head_seconds
            case _Phase.BODY:
                self._deadline = now + limits.body_seconds
            case _Phase.LINGERING:
                self._deadline = now + limits.lingering_seconds
                self._drop_entry()
            case _:
                self._deadline = math.inf
        if self._entry is None:
            self._entry = self._owner.reactor.add_deadline(self.due(now), self)

    def _drop_entry(self) -> None:
        if self._entry is not None:
            self._owner.reactor.drop_deadline(self._entry)
            self._entry = None

    def _refuse(self, status: int) -> None:
        """Respond with an error if no response has begun, and close the connection."""
        assert self._http is not None
        if self._cycle is not None:
            self._cycle.abandon()
        if not self._http.can_refuse:
            self.close()
            return
        self._sending_since = self._owner.reactor.clock()
        self._connection.write(self._http.refusal(status))
        self._linger()

    def _linger(self) -> None:
        """End sending, and wait for the client to close: a reset may discard the last response."""
        self._enter(_Phase.LINGERING)
        self._connection.end_sending()
        self._connection.resume()
