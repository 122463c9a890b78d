"""A connection over a socket, with or without TLS."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gprochat_anyio._redaction import Hidden

from ._connection import READ_SIZE, Receiver
from ._failures import Unreadable
from ._reactor import READ, WRITE, Reactor

if TYPE_CHECKING:
    from ._target import Target
    from ._tls import TLSLayer

_READS_AT_A_DEADLINE = 16

_log = logging.getLogger("gprochat_anyio")


class SocketConnection:
    """A connection over a socket, which it owns.

    :param layers: The TLS layers, the one next to the socket first.
    """

    __slots__ = (
        "_events",
        "_fd",
        "_layers",
        "_recv",
        "_reset",
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
        self._reset: OSError | None = None  # reported to a send, and therefore not to a read
        self._room = reactor.signal()
        self._events = READ
        reactor.join()
        try:
            reactor.register(self._fd, READ, self._on_ready)
        except OSError:
            reactor.leave()
            connected.close()
            raise

    # Reading

    def _on_ready(self, events: int) -> None:
        receiver = self.receiver
        try:
            if events & WRITE and self._unsent is not None:
                self._flush()
            if events & self._events & READ:  # it may have been paused or closed meanwhile
                self._read()
        except BaseException as error:  # noqa: BLE001 - it fails this connection's receiver only
            self._give_up(error, receiver)

    def look(self) -> None:
        """Push data that has already arrived to the receiver."""
        receiver = self.receiver
        try:
            for _ in range(_READS_AT_A_DEADLINE):
                if not self._events & READ or not self._read():
                    return
        except BaseException as error:  # noqa: BLE001 - it fails this connection's receiver only
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
            self._end(self._reset)
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
        """Handle the end of the data. Stop watching the socket, which would stay readable."""
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
        """Fail the receiver, whose data is lost. Re-raise an interrupt, which is not a bug."""
        if isinstance(error, Exception):
            _log.error(
                "a response could not be read because of a bug in gprochat_anyio", exc_info=error
            )
        try:
            if receiver is not None:
                receiver.broken(Unreadable(error))
        finally:
            self.close()
        if not isinstance(error, Exception):
            raise error

    def is_quiet(self) -> bool:
        if self.closed or not self._events:
            return False
        if self._layers:
            self.look()  # session tickets may have arrived
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
        self.write(data)
        del data  # a cancellation's traceback would show the frame's variables
        try:
            while self._unsent is not None:
                await self._room.wait()
        except BaseException:
            self._stop_sending()
            raise

    def write(self, data: bytes) -> None:
        """Send data without waiting. The part that does not fit is sent when the socket is
        writable."""
        if self._layers and not self.reused:
            self._decrypt(b"", ended=False)  # data may have arrived after the handshake
        for layer in reversed(self._layers):
            layer.encrypt(data)
            data = layer.outgoing()
        self._write(data)

    def end_sending(self) -> None:
        """Shut down sending. The peer's data can still be read."""
        for layer in self._layers:
            layer.end()
        self._send_outgoing()
        if self._unsent is None:  # otherwise closing has to do it
            with suppress(OSError):  # the peer has disconnected
                self._socket.shutdown(socket.SHUT_WR)

    def _send_outgoing(self) -> None:
        """Send the TLS layers' own records: alerts, and replies to key updates."""
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
        sent = self._send_now(data)
        if sent < len(data):
            self._unsent = memoryview(data)[sent:]
            self._watch(self._events | WRITE)

    def _flush(self) -> None:
        assert self._unsent is not None
        self._unsent = self._unsent[self._send_now(self._unsent) :]
        if not self._unsent:
            self._stop_sending()

    def _send_now(self, data: bytes | memoryview) -> int:
        """Return the number of bytes sent. If the peer has disconnected, that is all of them."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except (
            OSError
        ) as error:  # the next read reports it, unless this call has consumed the error
            if isinstance(error, ConnectionResetError):
                self._reset = error
            return len(data)

    def _stop_sending(self) -> None:
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
        self._room.set()
        self.reactor.leave()
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()
