"""The events of a request, as its observers are told of them.

None holds a prompt, a text, a key, a password or anything of a proxy: an error is told by its type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from gprochat_anyio._wire.usage import Usage

How = Literal["done", "failed", "cancelled", "left"]
"""How a request ended: with the whole reply, with an error of the library's, by a cancellation (or
Ctrl-C), or because the caller stopped it, left its block or raised something there."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error, without its message."""

    error: str
    """The name of its class, or "cancelled"."""
    status: int | None = None
    """The HTTP status, if the site answered with one."""
    phase: str | None = None
    """Which clock ran out, if one did."""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        if not isinstance(error, Exception):
            return cls("cancelled")
        status, phase = getattr(error, "status", None), getattr(error, "phase", None)
        return cls(type(error).__name__, status or None, phase)


class Received(NamedTuple):
    """The part of a reply that has arrived."""

    chunks: int = 0
    characters: int = 0
    finish_reason: str | None = None
    usage: Usage | None = None


NOTHING = Received()


@dataclass(frozen=True, slots=True)
class End:
    """The end of a request."""

    how: How
    seconds: float
    """Since the request began: waits and failed attempts included."""
    attempts: int
    received: Received
    failure: Failure | None


class Observed(NamedTuple):
    """An endpoint, as observers know it."""

    host: str
    """Its name, for a model in this process."""
    port: int
    """0 for a model in this process."""
    provider: str = "gprochat"
    """In the terms of OpenTelemetry's `gen_ai.provider.name`."""
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Predecessor:
    """A request to another endpoint of a fleet, for the same prompt."""

    site: str
    """Host and port."""
    failure: Failure | None
    """Why it failed; None if it is still waiting for its first text."""
    seconds: float
    """Since the prompt was first sent."""


class Observer(Protocol):
    """Is told what happens to one request, in the task where it happens. `ended` comes last."""

    def took_over(self, before: Predecessor) -> None:
        """The request was sent because another endpoint failed, or is slow; comes first."""
        ...

    def connected(self, seconds: float | None) -> None:
        """A connection was made in so many seconds; None: it was there already."""
        ...

    def retrying(self, attempt: int, failure: Failure, pause: float) -> None:
        """An attempt failed, and the next begins after so many seconds."""
        ...

    def first_text(self, seconds: float, attempts: int) -> None:
        """The first text has come, so many seconds after the request began."""
        ...

    def ended(self, end: End) -> None: ...


Observe = Callable[[Observed], Observer]
"""Called as a request to an endpoint begins, in the caller's context."""
