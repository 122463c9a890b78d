"""A reply, once it is there, and how its request went."""

from __future__ import annotations

from dataclasses import dataclass, field

from gprochat_anyio._wire.usage import Usage


@dataclass(frozen=True, slots=True)
class Timing:
    """How a request went. Durations are seconds, by the event loop's clock: uvloop's ticks in
    milliseconds."""

    connect: float
    """Name lookup, TCP, proxy and TLS of the attempt that succeeded; 0.0 on a kept connection."""
    first_chunk: float
    """From the first byte of that attempt's request to the first text."""
    total: float
    """From the call to the end of the reply, or until now: waits and failed attempts included."""
    chunks: int
    """How many pieces of text arrived. Their borders mean nothing."""
    characters: int
    """Characters of the text."""
    attempts: int
    """How many times the request was sent, or tried to be."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete reply. Its `repr` does not show the text."""

    text: str = field(repr=False)
    timing: Timing
    finish_reason: str | None = None
    """The reason why the reply ended: `"stop"`, `"length"` at a limit of tokens, or another of the
    API's words. None if the API does not say, as GPROChat's."""
    usage: Usage | None = None
    """The tokens that the reply took; None if the API does not say."""

    def __str__(self) -> str:
        return self.text
