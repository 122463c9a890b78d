"""A buffer for the response of an exchange, which a task reads."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from anyio.lowlevel import checkpoint

from ._exchange import Exchange
from ._failures import ConnectionLost
from ._loops import Signal
from ._response_parser import ResponseParser

HIGH = 64 * 1024
"""Number of buffered bytes at which the connection is paused."""

_REFUSALS = 300  # statuses of redirects and errors start here


class ResponseBuffer:
    """Sink that buffers a response, for one reading task at a time.

    :param signal: A signal of the connection's reactor.
    """

    def __init__(self, signal: Signal) -> None:
        self.head: ResponseParser | None = None
        """The response's parser, once the head is complete."""
        self.on_refusal: Callable[[], None] | None = None
        """Called for the head of a redirect or an error, when the rest of the request need not be
        sent. A server that responds with a success still expects the rest."""
        self.exchange: Exchange
        self._signal = signal
        self._pieces: list[bytes] = []
        self._size = 0
        self._over = self._is_reading = False
        self._failure: BaseException | None = None

    @property
    def over(self) -> bool:
        """True once the response has ended or failed."""
        return self._over

    def on_head(self, response: ResponseParser) -> None:
        self.head = response
        if response.status >= _REFUSALS and self.on_refusal is not None:
            self.on_refusal()
        self._signal.set()

    def on_body(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= HIGH:
            self.exchange.pause()
        self._signal.set()

    def on_end(self) -> None:
        self._over = True
        self._signal.set()

    def on_failure(self, failure: BaseException) -> None:
        self._failure = failure
        self._over = True
        if self.on_refusal is not None:
            self.on_refusal()
        self._signal.set()

    def close(self) -> None:
        """Release the connection. A task that waits for data gets an error."""
        self.exchange.close()
        if not self._over or self._pieces:
            self._pieces.clear()
            self._over = True
            self._failure = ConnectionLost(
                "the connection was closed before its response was read",
                answered=True,
                reused=self.exchange.reused,
                reset=False,
            )
            self._signal.set()

    async def wait_for_head(self) -> ResponseParser:
        """Return the response once its head is complete.

        :raises TransportFailure: If it does not arrive.
        """
        while self.head is None and not self._over:
            await self._signal.wait()
        if self.head is None:
            assert self._failure is not None
            raise self._failure
        return self.head

    async def read(self) -> bytes:
        """Wait for data of the body and return it, or `b""` at the end. Cancellation loses no data.

        :raises BusyResourceError: If another task is reading.
        :raises TransportFailure: If the response fails. Data that arrived before is returned first.
        """
        if self._is_reading:
            raise anyio.BusyResourceError("reading from")
        self._is_reading = True
        try:
            if self._pieces or self._over:
                await checkpoint()
            while not (self._pieces or self._over):
                await self._signal.wait()
        finally:
            self._is_reading = False
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
            self.exchange.resume()
            return data
        if self._failure is not None:
            raise self._failure
        return b""
