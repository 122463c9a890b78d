"""Complete replies, and the timing of their requests."""

from __future__ import annotations

from dataclasses import dataclass, field

from gprochat_anyio._wire.usage import Usage


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations and counts of a request. Durations are in seconds, by the event loop's clock, which
    on uvloop has a resolution of a millisecond."""

    connect: float
    """Name resolution, TCP, proxy and TLS of the successful attempt. 0.0 for a reused
    connection."""
    first_chunk: float
    """Time from sending the first byte of the successful attempt to receiving the first text."""
    total: float
    """Time from the call to the end of the reply, or to now. It includes waits and failed
    attempts."""
    chunks: int
    """Number of pieces of text. Their boundaries have no meaning."""
    characters: int
    """Number of characters of text."""
    attempts: int
    """Number of attempts, including those that failed to connect."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete reply. Its `repr` hides the text."""

    text: str = field(repr=False)
    timing: Timing
    finish_reason: str | None = None
    """The finish reason: `"stop"`, `"length"` for a token limit, or another of the API's names.
    `None` if the API does not report one, such as GPROChat's."""
    usage: Usage | None = None
    """The token counts. `None` if the API does not report them."""

    def __str__(self) -> str:
        return self.text
