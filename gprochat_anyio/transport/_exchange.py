"""One request and its answer, on one connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from functools import lru_cache

import anyio

from ._failures import ConnectionLost, TransportFailure, single
from ._parser import AnswerParser
from ._pool import KEEP_ALIVE, Connection, Pool
from ._stages import OnStage
from ._target import Target

READ_SIZE = 64 * 1024
"""The most that one read takes from the connection, in bytes: the bound of what is buffered
here while nobody reads."""

_AT_ONCE = 64 * 1024  # up to here a request is sent before its answer is looked for

_REFUSALS = 300  # from this status on: redirects and errors

_LOST = (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)
_ENDED = (anyio.EndOfStream, *_LOST)


async def exchange(
    pool: Pool,
    target: Target,
    head: bytes,
    body: bytes | AsyncIterable[bytes] = b"",
    *,
    on_stage: OnStage,
    bodiless: bool = False,
    fresh: bool = False,
) -> Exchange:
    """Send a request, and read the head of its answer.

    Whatever exception leaves it, a cancellation included, the connection is closed and its slot
    free. An answer that comes before the request was sent whole ends the sending, unless it is a
    success (2xx): that server wants the rest.

    :param head: the request's head, with the blank line that ends it
    :param body: the request's body, framed as the head says
    :param on_stage: called as "connect", "send" and "read" begin, "read" before each read
    :param bodiless: whether the answer has no body, whatever its head says (HEAD)
    :param fresh: whether a connection that was used before will not do
    :raises TransportFailure: if no connection can be made, or no valid head comes
    """
    connection = await pool.acquire(target, on_stage, fresh=fresh)
    made = Exchange(pool, connection, bodiless=bodiless)
    try:
        on_stage("send")
        if isinstance(body, bytes) and len(body) <= _AT_ONCE:
            await made.send(head + body)
            await made.read_head(on_stage)
        else:
            await made.send_while_reading(head, body, on_stage)
    except BaseException:
        await made.aclose()
        raise
    return made


class Exchange:
    """An answer whose head has been read. Whoever got it closes it."""

    __slots__ = ("_connection", "_pool", "_sent", "_stream", "parser", "reused")

    def __init__(self, pool: Pool, connection: Connection, *, bodiless: bool) -> None:
        self.parser = AnswerParser(bodiless=bodiless)
        """The answer as far as it was parsed."""
        self.reused = connection.reused
        """Whether the connection had served an earlier exchange."""
        self._pool = pool
        self._connection: Connection | None = connection
        self._stream = connection.stream
        self._sent = True

    async def receive(self) -> list[bytes]:
        """The next pieces of the body, an empty one for each end of an HTTP chunk; at the end of
        the body, nothing. Cancelled, it loses nothing.

        :raises TransportFailure: if the connection breaks, or the answer is malformed
        """
        parser = self.parser
        while not (parser.pieces or parser.complete or parser.violation):
            try:
                data = await self._stream.receive(READ_SIZE)
            except _ENDED as error:
                self._end(error)
            else:
                if self._connection is None:  # another task closed it as the data came
                    self._end(anyio.ClosedResourceError())
                parser.feed(data)
        return parser.take()

    async def aclose(self) -> None:
        """Give the connection back if the answer is complete, close it at once if it is not.

        It never waits for the peer, and cancellation does not stop it from closing.
        """
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        self.parser.release()
        if self._sent and self.parser.reusable:
            await self._pool.give_back(connection, self._keep_alive())
        else:
            await self._pool.discard(connection)

    async def send(self, data: bytes) -> None:
        """Send; if the connection breaks, an answer may still have come before that."""
        try:
            await self._stream.send(data)
        except _LOST:
            self._sent = False

    async def read_head(self, on_stage: OnStage) -> None:
        """Read until the answer's head is complete."""
        while not self.parser.head_complete:
            if self._sent:
                on_stage("read")
            try:
                data = await self._stream.receive(READ_SIZE)
            except _ENDED as error:
                self._end(error)
            else:
                self.parser.feed(data)

    async def send_while_reading(
        self, head: bytes, body: bytes | AsyncIterable[bytes], on_stage: OnStage
    ) -> None:
        """Send, and read the answer's head; a refusal ends the sending."""
        failure: Exception | None = None
        self._sent = False

        async def send_all() -> None:
            nonlocal failure
            try:
                await self._send_all(head, body, on_stage)
            except Exception as error:  # noqa: BLE001 - the body's iterator is the caller's code
                failure = error
                group.cancel_scope.cancel()

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(send_all)
                try:
                    await self.read_head(on_stage)
                except TransportFailure as error:
                    failure = failure or error
                if failure is not None or self.parser.status >= _REFUSALS:
                    group.cancel_scope.cancel()
        except BaseExceptionGroup as raised:
            raise single(raised) from None
        if failure is not None:
            raise failure

    async def _send_all(
        self, head: bytes, body: bytes | AsyncIterable[bytes], on_stage: OnStage
    ) -> None:
        try:
            await self._stream.send(head)
            if isinstance(body, bytes):
                for start in range(0, len(body), _AT_ONCE):
                    on_stage("send")
                    await self._stream.send(body[start : start + _AT_ONCE])
            else:
                async for part in body:
                    on_stage("send")
                    await self._stream.send(part)
        except _LOST:
            return
        finally:
            if isinstance(body, AsyncGenerator):
                await body.aclose()
        self._sent = True
        on_stage("read")

    def _end(self, error: Exception) -> None:
        """The connection gives no more: the answer is complete, or broken off."""
        parser = self.parser
        reset = not isinstance(error, anyio.EndOfStream)
        if not reset and parser.feed_eof():
            return
        missing = "its answer was complete" if parser.received else "it answered"
        how = "broke" if reset else "was closed by the peer"
        raise ConnectionLost(
            f"the connection {how} before {missing}",
            answered=parser.received,
            reused=self.reused,
            reset=reset,
        )

    def _keep_alive(self) -> float:
        for name, value in self.parser.headers:
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
