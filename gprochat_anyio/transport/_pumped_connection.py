"""A connection over a byte stream that is not a socket, for tests with a site in memory.

A background task reads the stream during an exchange. The stream's `close` must not wait.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import anyio

from ._connection import READ_SIZE, Receiver
from ._failures import Unreadable
from ._reactor import Reactor
from ._target import Target
from ._wiring import MemoryStream

_log = logging.getLogger("gprochat_anyio")

_LOST = (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


class PumpedConnection:
    """A connection over a byte stream, which it owns. A task reads while there is a receiver."""

    is_sending = False  # sending to memory waits in `send` only

    def __init__(self, stream: MemoryStream, target: Target, reactor: Reactor) -> None:
        self.reactor = reactor
        self.target = target
        self.receiver: Receiver | None = None
        self.on_unsolicited: Callable[[Any], None] | None = None
        self.reused = self.closed = self.paused = False
        self.expires = 0.0
        self._stream = stream
        self._cancel: Callable[[], object] | None = None
        self._resumed = reactor.signal()
        reactor.join()

    def is_quiet(self) -> bool:
        return not self.closed

    async def send(self, data: bytes) -> None:
        if self._cancel is None:
            self._cancel = self.reactor.spawn(self._pump, "gprochat_anyio pump")
        try:
            await self._stream.send(data)
        except _LOST:
            return  # the next read reports it

    def look(self) -> None:
        """Do nothing, because the receiver already has all data that has arrived."""

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        self._resumed.set()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.receiver = None
        self._stream.close()
        cancel, self._cancel = self._cancel, None
        if cancel is not None:
            cancel()
        self.reactor.leave()

    def fileno(self) -> int:
        return -1

    async def _pump(self) -> None:
        try:
            while (receiver := self.receiver) is not None:
                if self.paused:
                    await self._resumed.wait()
                    continue
                error: Exception | None = None
                try:
                    data = await self._stream.receive(READ_SIZE)
                except anyio.EndOfStream:
                    data = b""
                except _LOST as lost:
                    data, error = b"", lost
                except Exception as own:  # noqa: BLE001 - the test's, re-raised to its caller
                    self._give_up(own)
                    break
                if self.receiver is not receiver:
                    break
                self.reactor.now = self.reactor.clock()
                if not data:
                    self._cancel = None
                    receiver.lost(error)
                    break
                receiver.feed(data)
        except Exception as error:  # noqa: BLE001 - it fails this connection's receiver only
            _log.error(
                "a response could not be read because of a bug in gprochat_anyio", exc_info=error
            )
            self._give_up(Unreadable(error))
        finally:
            self._cancel = None

    def _give_up(self, error: Exception) -> None:
        if self.receiver is not None:
            self.receiver.broken(error)
        self.close()
