"""One request and its response on a connection, parsed and pushed to a sink."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

from ._connection import Connection
from ._failures import ConnectionLost, ProtocolViolation
from ._pool import KEEP_ALIVE, Pool
from ._response_parser import ResponseParser


class ResponseSink(Protocol):
    """Receiver of the parts of a response, in order. No method may wait.

    No method is called after `on_end`, after `on_failure`, or once the exchange is closed.
    """

    def on_head(self, response: ResponseParser) -> None:
        """Handle the head."""
        ...

    def on_body(self, data: bytes) -> None:
        """Handle a piece of the body, which is never empty."""
        ...

    def on_end(self) -> None:
        """Handle the end of a complete response. Its connection has been released."""
        ...

    def on_failure(self, failure: BaseException) -> None:
        """Handle the failure of an incomplete response."""
        ...


class Exchange:
    """One request and its response. Its creator closes it.

    :param connection: The connection, which the exchange returns to the pool or closes.
    :param bodiless: True if the response has no body regardless of its head (HEAD).
    """

    __slots__ = ("_connection", "_headed", "_pool", "_sink", "parser", "proxy", "reused", "sent")

    def __init__(
        self, pool: Pool, connection: Connection, sink: ResponseSink, *, bodiless: bool = False
    ) -> None:
        self.parser = ResponseParser(bodiless=bodiless)
        self.reused = connection.reused
        """True if the connection has served an earlier exchange."""
        self.proxy = connection.target.forwarded_by
        """The proxy that forwards the request, and may respond to it."""
        self.sent = True
        """False while part of the request is unsent. The connection cannot be reused then."""
        self._pool = pool
        self._connection: Connection | None = connection
        self._sink: ResponseSink | None = sink
        self._headed = False
        connection.receiver = self

    @property
    def closed(self) -> bool:
        """True once the connection has been released."""
        return self._connection is None

    async def send(self, data: bytes) -> None:
        """Send a part of the request. Return early if the connection breaks or is closed."""
        if self._connection is not None:
            await self._connection.send(data)

    def look(self) -> None:
        """Process data that has already arrived."""
        if self._connection is not None:
            self._connection.look()

    @property
    def paused(self) -> bool:
        """True while reading from the connection is paused."""
        return self._connection is not None and self._connection.paused

    def pause(self) -> None:
        """Pause reading, so that TCP slows the peer down."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Resume reading."""
        if self._connection is not None and self._connection.paused:
            self._connection.resume()

    def close(self) -> None:
        """Return the connection to the pool if the response is complete, and close it otherwise.

        This never waits and may be called repeatedly, in any task or callback of the event loop.
        """
        self._let_go()
        self._sink = None  # it refers to this exchange

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.receiver = None
        parser = self.parser
        if self.sent and parser.reusable and not connection.is_sending:
            if connection.paused:
                connection.resume()
            self._pool.give_back(connection, _keep_alive(parser.headers))
        else:
            self._pool.discard(connection)
        parser.release()

    async def wait_closed(self) -> None:
        """Do nothing, because an exchange has no background task."""

    # Called by the connection

    def feed(self, data: bytes) -> None:
        parser, sink = self.parser, self._sink
        assert sink is not None
        try:
            parser.feed(data)
        except ProtocolViolation as violation:
            self._fail(violation)
            return
        if not self._headed:
            if not parser.head_complete:
                return
            self._headed = True
            sink.on_head(parser)
        if self._connection is not None and (pieces := parser.pieces):
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            sink.on_body(data)
        if self._connection is None:
            return
        if parser.complete:
            self._finish()
        elif parser.violation is not None:
            self._fail(parser.violation)

    def lost(self, error: Exception | None) -> None:
        parser = self.parser
        if error is None and parser.feed_eof():
            self._finish()
            return
        if self.proxy is not None and not self._headed and parser.announced_status == 407:
            from ._proxies import proxy_refusal  # noqa: PLC0415

            self._fail(proxy_refusal(self.proxy))
            return
        missing = "its response was complete" if parser.received else "it responded"
        how = "was closed by the peer" if error is None else "broke"
        self._fail(
            ConnectionLost(
                f"the connection {how} before {missing}",
                answered=parser.received,
                reused=self.reused,
                reset=error is not None,
            )
        )

    def broken(self, error: BaseException) -> None:
        self._fail(error)

    def _finish(self) -> None:
        sink = self._sink
        assert sink is not None
        self._let_go()
        sink.on_end()
        self._sink = None  # not before: if `on_end` raises, `on_failure` follows

    def _fail(self, failure: BaseException) -> None:
        sink = self._sink
        self.close()
        if sink is not None:
            sink.on_failure(failure)


def _keep_alive(headers: list[tuple[bytes, bytes]]) -> float:
    for name, value in headers:
        if name.lower() == b"keep-alive":
            return _timeout_in(value)
    return KEEP_ALIVE


@lru_cache(maxsize=16)  # a site sends the same value each time
def _timeout_in(keep_alive: bytes) -> float:
    for parameter in keep_alive.lower().split(b","):
        name, _, seconds = parameter.partition(b"=")
        if name.strip() == b"timeout" and seconds.strip().isdigit():
            return float(seconds)
    return KEEP_ALIVE
