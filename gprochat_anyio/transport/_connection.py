"""A connection that pushes what arrives into its receiver: a socket, with or without TLS."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from gprochat_anyio._redaction import Hidden

from ._reactor import READ, WRITE, Reactor

if TYPE_CHECKING:
    from ._target import Target
    from ._tls import TLSLayer

READ_SIZE = 64 * 1024
"""The most that one read takes from a socket, in bytes."""

_READS_AT_A_DEADLINE = 16

_log = logging.getLogger("gprochat_anyio")


class Receiver(Protocol):
    """Takes what arrives on a connection. Nothing here may wait."""

    def feed(self, data: bytes) -> None:
        """Take bytes of the peer's."""
        ...

    def lost(self, error: Exception | None) -> None:
        """Take note of the end: an orderly one, or one by an error."""
        ...

    def broken(self) -> None:
        """Take note that a defect of the library lost what was read."""
        ...


class Connection(Protocol):
    """A connection to an origin. The pool keeps it between two exchanges."""

    reactor: Reactor
    target: Target
    receiver: Receiver | None
    on_unsolicited: Callable[[Any], None] | None
    """Called if the peer sends or ends something between two exchanges."""
    reused: bool
    """True if it has served an earlier exchange."""
    expires: float
    """The time at which an idle connection is given up."""
    closed: bool

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
        """Send data; returns early if the connection breaks, which the receiver is told."""
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

    def stop_sending(self) -> None:
        """Let `send` return, with whatever it has sent."""
        ...

    def close(self) -> None:
        """Close at once, in any task or callback of the event loop."""
        ...

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 without one, or once it is closed."""
        ...


class SocketConnection:
    """A connected socket, owned from here on.

    :param layers: the TLS layers on it, the one next to the socket first
    """

    __slots__ = (
        "_events",
        "_fd",
        "_layers",
        "_recv",
        "_room",
        "_socket",
        "_unsent",
        "closed",
        "expires",
        "on_unsolicited",
        "reactor",
        "receiver",
        "reused",
        "target",
    )

    def __init__(
        self,
        connected: socket.socket,
        layers: tuple[TLSLayer, ...],
        target: Target,
        reactor: Reactor,
    ) -> None:
        self.reactor = reactor
        self.target = target
        self.receiver: Receiver | None = None
        self.on_unsolicited: Callable[[Any], None] | None = None
        self.reused = self.closed = False
        self.expires = 0.0
        self._socket = connected
        self._layers = layers
        self._recv = connected.recv
        self._fd = connected.fileno()
        self._unsent: memoryview | None = None
        self._room = reactor.signal()
        self._events = READ
        reactor.join()
        reactor.register(self._fd, READ, self._on_ready)

    # Reading

    def _on_ready(self, events: int) -> None:
        receiver = self.receiver
        try:
            if events & WRITE and self._unsent is not None:
                self._flush()
            if events & self._events & READ:
                self._read()
        except BaseException as error:
            self._give_up(error, receiver)
            if not isinstance(error, Exception):
                raise

    def look(self) -> None:
        """Push what has arrived already."""
        receiver = self.receiver
        try:
            for _ in range(_READS_AT_A_DEADLINE):
                if self.closed or not self._events & READ or not self._read():
                    return
        except Exception as error:  # noqa: BLE001 - it fails this connection's receiver only
            self._give_up(error, receiver)

    def _read(self) -> bool:
        try:
            data = self._recv(READ_SIZE)
        except BlockingIOError:
            return False
        except OSError as error:
            self._end(error)
            return False
        if self._layers:
            self._decrypt(data, ended=not data)
        elif not data:
            self._end(None)
        elif self.receiver is not None:
            self.receiver.feed(data)
        else:
            self._refuse_unsolicited()
        return bool(data)

    def _decrypt(self, data: bytes, *, ended: bool) -> None:
        failure: Exception | None = None
        for layer in self._layers:
            if ended:
                layer.feed_eof()
            data = layer.decrypt(data)
            ended = ended or layer.ended
            failure = failure or layer.failure
        self._send_outgoing()
        if data:
            if self.receiver is None:
                self._refuse_unsolicited()
            else:
                self.receiver.feed(data)
        if (ended or failure is not None) and not self.closed:
            self._end(failure)

    def _end(self, error: Exception | None) -> None:
        """Nothing more comes: stop watching, or it would be reported for ever."""
        if self.receiver is None:
            self._refuse_unsolicited()
        else:
            self._watch(0)
            self.receiver.lost(error)

    def _refuse_unsolicited(self) -> None:
        self._watch(0)
        if self.on_unsolicited is not None:
            self.on_unsolicited(self)

    def _give_up(self, error: BaseException, receiver: Receiver | None) -> None:
        _log.error("a response could not be read, by a defect of gprochat_anyio", exc_info=error)
        try:
            if receiver is not None:
                receiver.broken()
        finally:
            self.close()

    def is_quiet(self) -> bool:
        if self.closed or not self._events:
            return False
        if self._layers:
            self.look()  # session tickets may have come
            return not self.closed and bool(self._events)
        try:
            self._recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    # Sending

    @property
    def is_sending(self) -> bool:
        return self._unsent is not None

    async def send(self, data: bytes) -> None:
        if self._layers and not self.reused:
            self._decrypt(b"", ended=False)  # some may have arrived behind the handshake
        for layer in reversed(self._layers):
            layer.encrypt(data)
            data = layer.outgoing()
        self._write(data)
        del data  # a cancellation's traceback shows what a frame holds
        while self._unsent is not None:
            await self._room.wait()

    def _send_outgoing(self) -> None:
        """Send what the TLS layers have to say themselves: alerts, and answers to key updates."""
        for number, layer in enumerate(self._layers):
            data = layer.outgoing()
            for outer in reversed(self._layers[:number]):
                outer.encrypt(data)
                data = outer.outgoing()
            if data:
                self._write(data)

    def _write(self, data: bytes) -> None:
        if self._unsent is not None:
            self._unsent = memoryview(Hidden(b"".join((self._unsent, data))))
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # reading tells
        if sent < len(data):
            self._unsent = memoryview(data)[sent:]
            self._watch(self._events | WRITE)

    def _flush(self) -> None:
        assert self._unsent is not None
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self._unsent = self._unsent[:0]  # reading tells
        if not self._unsent:
            self.stop_sending()

    def stop_sending(self) -> None:
        """Let `send` return, with whatever it has sent."""
        if self._unsent is not None:
            self._unsent = None
            self._watch(self._events & ~WRITE)
            self._room.set()

    # Watching

    @property
    def paused(self) -> bool:
        return not self._events & READ

    def pause(self) -> None:
        self._watch(self._events & ~READ)

    def resume(self) -> None:
        if not self.closed:
            self._watch(self._events | READ)

    def _watch(self, events: int) -> None:
        before, self._events = self._events, events
        if before != events:
            self.reactor.watch(self._fd, before, events, self._on_ready)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.receiver = None
        self._unsent = None
        self._watch(0)
        self._socket.close()
        self._room.set()
        self.reactor.leave()

    def fileno(self) -> int:
        return self._socket.fileno()
