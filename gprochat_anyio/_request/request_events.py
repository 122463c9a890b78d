"""Events of a request, for its observers.

No event contains a prompt, a text, a key, a password or a proxy's address. Errors are reported by
their type only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from gprochat_anyio._wire.usage import Usage

How = Literal["done", "failed", "cancelled", "left"]
"""The outcome of a request: a complete reply ("done"), an error of the library ("failed"), a
cancellation or Ctrl-C ("cancelled"), or a caller that stopped the reply, left its block or raised
an exception there ("left")."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error, without its message."""

    error: str
    """The name of the error's class, or "cancelled"."""
    status: int | None = None
    """The HTTP status, if there was a response."""
    phase: str | None = None
    """The deadline that passed, if the error is a timeout."""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        if not isinstance(error, Exception):
            return cls("cancelled")
        status, phase = getattr(error, "status", None), getattr(error, "phase", None)
        return cls(type(error).__name__, status or None, phase)


class Received(NamedTuple):
    """The received part of a reply."""

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
    """Duration of the request, including waits and failed attempts."""
    attempts: int
    received: Received
    failure: Failure | None


class Observed(NamedTuple):
    """Description of an endpoint for observers."""

    host: str
    """The host, or the name of a model in this process."""
    port: int
    """The port, or 0 for a model in this process."""
    provider: str = "gprochat"
    """The API's name, as OpenTelemetry's `gen_ai.provider.name`."""
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Predecessor:
    """An earlier request of a fleet for the same prompt, to another endpoint."""

    site: str
    """The other endpoint's host and port."""
    failure: Failure | None
    """The failure, or `None` if the request is still waiting for its first text."""
    seconds: float
    """Seconds since the prompt was first sent."""


class Observer(Protocol):
    """Observer of one request. Methods run in the request's task, and `ended` is called last."""

    def took_over(self, before: Predecessor) -> None:
        """Observe that the request replaces or hedges one to another endpoint. This is called
        first."""
        ...

    def connected(self, seconds: float | None) -> None:
        """Observe a connection, made in some seconds. `None` for a reused connection."""
        ...

    def retrying(self, attempt: int, failure: Failure, pause: float) -> None:
        """Observe a failed attempt. The next one starts after `pause` seconds."""
        ...

    def first_text(self, seconds: float, attempts: int) -> None:
        """Observe the first text, some seconds after the request started."""
        ...

    def ended(self, end: End) -> None: ...


Observe = Callable[[Observed], Observer]
"""A function that returns the observer of a new request to an endpoint. It is called in the
caller's context."""
