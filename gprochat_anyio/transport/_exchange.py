"""One request and its response, on one connection: from the socket's bytes to the sink's calls."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

from ._connection import Connection
from ._failures import ConnectionLost, ProtocolViolation
from ._pool import KEEP_ALIVE, Pool
from ._response_parser import ResponseParser


class ResponseSink(Protocol):
    """Takes the parts of a response in their order. Nothing here may wait.

    Nothing comes after `on_end`, after `on_failure`, or once the exchange is closed.
    """

    def on_head(self, response: ResponseParser) -> None:
        """Take the head."""
        ...

    def on_body(self, data: bytes) -> None:
        """Take some of the body, never empty."""
        ...

    def on_end(self) -> None:
        """Take note that the response is complete; its connection has been let go."""
        ...

    def on_failure(self, failure: BaseException) -> None:
        """Take note that the response is not complete; None stands for a defect of the library."""
        ...


class Exchange:
    """Feeds a response to a sink as it arrives. Whoever made it closes it.

    :param connection: owned from here on; an exchange gives it back, or closes it
    :param bodiless: True if the response has no body, whatever its head says (HEAD)
    """

    __slots__ = ("_connection", "_headed", "_pool", "_sink", "parser", "proxy", "reused", "sent")

    def __init__(
        self, pool: Pool, connection: Connection, sink: ResponseSink, *, bodiless: bool = False
    ) -> None:
        self.parser = ResponseParser(bodiless=bodiless)
        self.reused = connection.reused
        """True if the connection has served an earlier exchange."""
        self.proxy = connection.target.forwarded_by
        """The proxy that reads the request itself, and may answer it."""
        self.sent = True
        """False while the request has not been sent whole, which spoils the connection."""
        self._pool = pool
        self._connection: Connection | None = connection
        self._sink: ResponseSink | None = sink
        self._headed = False
        connection.receiver = self

    @property
    def closed(self) -> bool:
        """True once the connection has been let go."""
        return self._connection is None

    async def send(self, data: bytes) -> None:
        """Send a part of the request; returns early if the connection breaks or is closed."""
        if self._connection is not None:
            await self._connection.send(data)

    def look(self) -> None:
        """Take in what has arrived already."""
        if self._connection is not None:
            self._connection.look()

    @property
    def paused(self) -> bool:
        """True while nothing is read from the connection."""
        return self._connection is not None and self._connection.paused

    def pause(self) -> None:
        """Stop reading: TCP makes the peer wait."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Go on reading."""
        if self._connection is not None and self._connection.paused:
            self._connection.resume()

    def close(self) -> None:
        """Let the connection go: to the pool if the response is complete, closed if not.

        It never waits, and may be called in any task or callback of the event loop, repeatedly.
        """
        self._let_go()
        self._sink = None  # which refers to this exchange

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
        """Do nothing: nothing of an exchange runs in the background."""

    # By the connection

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
        missing = "its response was complete" if parser.received else "it answered"
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
        self._sink = None  # not before: whatever is raised there, it hears of it

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
