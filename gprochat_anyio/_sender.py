"""The seam between the client and HTTP: what sends a request and hands over its answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ._address import SiteAddress
from ._errors import (
    GPROChatError,
    Phase,
    ReplyInterruptedError,
    RequestTimeoutError,
    SiteConnectionError,
    UnexpectedResponseError,
)
from .transport._exchange import Exchange, exchange
from .transport._failures import ConnectFailure, ConnectionLost, TimedOut, TransportFailure
from .transport._pool import OnStage, Pool


class Answer(Protocol):
    """An answer whose head has come. Whoever was given it closes it."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The head's fields by lower-case name."""
        ...

    @property
    def framed(self) -> bool:
        """Whether the end of the body can be told from a broken connection."""
        ...

    @property
    def complete(self) -> bool:
        """Whether the body has been received to its end."""
        ...

    async def receive(self) -> list[bytes]:
        """The next pieces of body, an empty one for each end of an HTTP chunk; none at its end.

        :raises TransportFailure: if the connection breaks, or the answer is malformed
        """
        ...

    def open_chunk_size(self, received: bytes) -> int | None:
        """The size of the HTTP chunk being received, if known: see `ReplyDecoder.feed`."""
        ...

    async def aclose(self) -> None:
        """Let the connection go: back if the answer is complete, closed at once if not."""
        ...


class Sender(Protocol):
    """Sends requests to one site."""

    async def send(self, path: str, body: bytes, on_stage: OnStage, *, fresh: bool) -> Answer:
        """POST to the site, and read the head of its answer.

        :param path: below the site's own
        :param on_stage: called as each stage begins
        :param fresh: whether a kept-alive connection will not do
        :raises TransportFailure: if there is no answer
        """
        ...

    async def aclose(self) -> None:
        """Close all connections that are not in use."""
        ...


class DirectAnswer:
    """The answer of an exchange over the library's own connections."""

    __slots__ = ("_parser", "aclose", "framed", "headers", "open_chunk_size", "receive", "status")

    def __init__(self, made: Exchange) -> None:
        self._parser = parser = made.parser
        self.status = parser.status
        self.framed = parser.framing in ("chunked", "length")
        self.headers = _fields(parser.headers)
        self.open_chunk_size = parser.open_chunk_size
        self.receive = made.receive
        self.aclose = made.aclose

    @property
    def complete(self) -> bool:
        return self._parser.complete


class DirectSender:
    """Sends over the library's own connections, directly or through a proxy.

    :param pool: of the connections; closed with the sender
    """

    def __init__(self, address: SiteAddress, pool: Pool) -> None:
        self._address = address
        self._pool = pool
        self._heads: dict[str, bytes] = {}

    async def send(self, path: str, body: bytes, on_stage: OnStage, *, fresh: bool) -> DirectAnswer:
        head = self._heads.get(path)
        if head is None:
            head = self._heads[path] = self._address.head(path)
        made = await exchange(
            self._pool,
            self._address.target,
            b"%b%d\r\n\r\n" % (head, len(body)),
            body,
            on_stage=on_stage,
            fresh=fresh,
        )
        return DirectAnswer(made)

    async def aclose(self) -> None:
        await self._pool.aclose()


def error_of(failure: TransportFailure) -> GPROChatError:
    """What a failure to get an answer's head means to the caller."""
    if isinstance(failure, ConnectFailure):
        return SiteConnectionError(f"{failure}; check the site's URL, and whether it is up")
    if isinstance(failure, TimedOut):
        phase: Phase = "connect" if failure.connecting else "first_chunk"
        return RequestTimeoutError(f"the transport's own limit: {failure}", phase=phase)
    if isinstance(failure, ConnectionLost) and not failure.answered:
        error = SiteConnectionError(f"{failure}; the site may be restarting: ask again")
        error.stale = failure.stale
        return error
    if isinstance(failure, ConnectionLost):
        return ReplyInterruptedError(f"{failure}; ask again")
    return UnexpectedResponseError(f"{failure}; check the site's URL")


def _fields(pairs: list[tuple[bytes, bytes]]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields
