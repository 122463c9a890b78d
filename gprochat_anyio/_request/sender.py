"""The seam between the client and HTTP: what sends a request and hands over its answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gprochat_anyio._errors import (
    GPROChatError,
    Phase,
    ReplyInterruptedError,
    RequestTimeoutError,
    SiteConnectionError,
    UnexpectedResponseError,
)
from gprochat_anyio.transport._failures import (
    ConnectFailure,
    ConnectionLost,
    TimedOut,
    TransportFailure,
)
from gprochat_anyio.transport._stages import OnStage


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

    @property
    def resumable(self) -> bool:
        """Whether a `receive` that was cancelled has lost nothing, and can be called again. If
        not, the next one raises: what is missing must not pass for the end."""
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
