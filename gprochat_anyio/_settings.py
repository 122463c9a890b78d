"""Settings that users give, validated: `Timeouts` and `Retry`."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal

from ._errors import (
    GPROChatError,
    Phase,
    RateLimitError,
    ReplyInterruptedError,
    RequestTimeoutError,
    SiteConnectionError,
    SiteError,
)


def check(argument: str, value: object, *kinds: type) -> None:
    """Make sure of an argument's type; a bool is no int.

    :raises ValueError: that names the argument
    """
    if not isinstance(value, kinds) or isinstance(value, bool):
        names = " or ".join("None" if k is type(None) else k.__name__ for k in kinds)
        raise ValueError(f"{argument} must be {names}, not {type(value).__name__}")


class _NotGiven(Enum):
    token = 0


_NOT_GIVEN: Final = _NotGiven.token
_Seconds = float | Literal[_NotGiven.token] | None

_DEFAULTS: dict[Phase, float | None] = {
    "connect": 10.0,
    "first_chunk": 60.0,
    "idle": 30.0,
    "total": 600.0,
}


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Timeouts:
    """Limits of one request, in seconds; None is no limit.

    Given to a call, the fields that were named override the client's; the others are the
    client's: `client.ask(prompt, timeouts=Timeouts(total=30))`.

    :raises ValueError: for a negative limit or one that is no number
    """

    connect: float | None
    """Name lookup, TCP, proxy and TLS together, for each attempt."""
    first_chunk: float | None
    """From the first byte of the request sent to the first text, for each attempt."""
    idle: float | None
    """Waiting for the network since the last text. It stands still while the caller is behind."""
    total: float | None
    """The whole request: waiting for a connection slot, all attempts, the waits between them,
    and the reply to its end."""
    _given: frozenset[str] = field(init=False)  # `dataclasses.replace` names all four

    def __init__(
        self,
        *,
        connect: _Seconds = _NOT_GIVEN,
        first_chunk: _Seconds = _NOT_GIVEN,
        idle: _Seconds = _NOT_GIVEN,
        total: _Seconds = _NOT_GIVEN,
    ) -> None:
        limits: dict[Phase, _Seconds] = {
            "connect": connect,
            "first_chunk": first_chunk,
            "idle": idle,
            "total": total,
        }
        for name, limit in limits.items():
            value = _DEFAULTS[name] if limit is _NOT_GIVEN else _checked(name, limit)
            object.__setattr__(self, name, value)
        given = frozenset(name for name, limit in limits.items() if limit is not _NOT_GIVEN)
        object.__setattr__(self, "_given", given)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in _DEFAULTS)
        return f"Timeouts({fields})"

    def over(self, base: Timeouts) -> Timeouts:
        """These limits where they were named, `base`'s elsewhere."""
        named = {name: getattr(self, name) for name in self._given}
        kept = {name: getattr(base, name) for name in base._given - self._given}
        return Timeouts(**kept, **named)

    def under(self, override: Timeouts | None) -> Timeouts:
        """These limits, but for those that the override names; None overrides nothing.

        :raises ValueError: for an override that is neither
        """
        if override is None:
            return self
        check("timeouts", override, Timeouts, type(None))
        return override.over(self)


def _checked(name: str, limit: float | None) -> float | None:
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise ValueError(f"timeouts: {name} is a number of seconds or None, not {limit!r}")
    if math.isnan(limit) or limit < 0:
        raise ValueError(f"timeouts: {name} must not be negative or NaN; None is no limit")
    return float(limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Which failures to get the first text are tried again. Nothing is retried after that text.

    The wait before attempt n + 1 is drawn evenly from the upper half of
    `min(backoff_max, backoff * 2 ** (n - 1))` seconds. A `Retry-After` is waited for instead, up to
    `max_wait`, with that same jitter on top. A wait that would outlast `Timeouts.total` is not
    begun: the error is raised at once.

    :raises ValueError: for numbers that make no sense
    """

    attempts: int = 3
    """How many attempts in all; 1 never retries."""
    connection_errors: bool = True
    """Whether to retry when no connection could be made, or when it closed before any byte of an
    answer. A kept-alive connection found closed is retried at once, without a wait."""
    statuses: frozenset[int] = frozenset({429, 502, 503, 504})
    """The HTTP statuses to retry; 429 includes a rate limit that a site reports as a 500."""
    interruptions: bool = True
    """Whether to retry a reply that broke off before its first text."""
    timeouts: bool = False
    """Whether to retry after `connect` or `first_chunk` ran out; never after `total`."""
    backoff: float = 0.5
    """The longest first wait, in seconds."""
    backoff_max: float = 20.0
    """The longest wait without a `Retry-After`, in seconds."""
    max_wait: float = 60.0
    """The longest wait for a `Retry-After`, in seconds."""

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int):
            raise ValueError(f"retry: attempts is a whole number, not {self.attempts!r}")
        if self.attempts < 1:
            raise ValueError("retry: attempts must be at least 1, which is no retry")
        for name in ("backoff", "backoff_max", "max_wait"):
            seconds = getattr(self, name)
            if not isinstance(seconds, int | float) or math.isnan(seconds) or seconds < 0:
                raise ValueError(f"retry: {name} must be a number of seconds, at least 0")
        object.__setattr__(self, "statuses", frozenset(self.statuses))

    def covers(self, error: GPROChatError) -> bool:
        """Whether an error before the first text is one to try again after."""
        if isinstance(error, SiteConnectionError):
            return self.connection_errors and error.retryable
        if isinstance(error, ReplyInterruptedError):
            return self.interruptions
        if isinstance(error, RequestTimeoutError):
            return self.timeouts and error.phase != "total"
        status = 429 if isinstance(error, RateLimitError) else getattr(error, "status", None)
        return status in self.statuses

    def wait(self, attempt: int, error: GPROChatError) -> float:
        """Seconds to wait after a failed attempt, counted from 1."""
        longest = min(self.backoff_max, self.backoff * 2.0 ** min(attempt - 1, 60))
        jittered = longest * random.uniform(0.5, 1.0)
        asked = error.retry_after if isinstance(error, SiteError) else None
        return jittered if asked is None else min(asked, self.max_wait) + jittered
