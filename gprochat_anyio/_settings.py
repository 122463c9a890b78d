"""Validated settings: `Timeouts`, `Retry` and transports."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Literal, Protocol

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
    """Check an argument's type. A bool is not an int here.

    :raises ValueError: If the type is another. The message names the argument.
    """
    if not isinstance(value, kinds) or isinstance(value, bool):
        names = " or ".join("None" if k is type(None) else k.__name__ for k in kinds)
        raise ValueError(f"{argument} must be {names}, not {type(value).__name__}")


class AsyncTransport(Protocol):
    """A transport of httpx or httpx2, whose classes have no common base."""

    async def handle_async_request(self, request: Any, /) -> Any:
        """Send a request, and return its response."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


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
    """Time limits of one request, in seconds. `None` for no limit.

    Passed to a call, the fields that are given override the client's; the client's apply otherwise:
    `client.ask(prompt, timeouts=Timeouts(total=30))`.

    :raises ValueError: If a limit is negative or not a number.
    """

    connect: float | None
    """Name resolution, TCP, proxy and TLS together, for each attempt."""
    first_chunk: float | None
    """Time from sending the request's first byte to receiving the first text, for each attempt."""
    idle: float | None
    """Time spent waiting for the network since the last text. It does not count while the consumer
    is behind."""
    total: float | None
    """Time of the whole request: waiting for a connection, all attempts, the waits between them,
    and the reply to its end."""
    _given: frozenset[str] = field(init=False)  # `dataclasses.replace` passes all four

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
        """Return these limits where they were given, and those of `base` otherwise."""
        named = {name: getattr(self, name) for name in self._given}
        kept = {name: getattr(base, name) for name in base._given - self._given}
        return Timeouts(**kept, **named)

    def under(self, override: Timeouts | None) -> Timeouts:
        """Return these limits, overridden by those that are given. `None` overrides nothing.

        :raises ValueError: If the override is neither `Timeouts` nor `None`.
        """
        if override is None:
            return self
        check("timeouts", override, Timeouts, type(None))
        return override.over(self)


def _checked(name: str, limit: float | None) -> float | None:
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise ValueError(f"timeouts: {name} must be a number of seconds or None, not {limit!r}")
    if math.isnan(limit) or limit < 0:
        raise ValueError(f"timeouts: {name} must not be negative or NaN; use None for no limit")
    return float(limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Policy for retrying a request before its first text. After that text, nothing is retried.

    The wait before attempt n + 1 is random, between half of
    `min(backoff_max, backoff * 2 ** (n - 1))` seconds and all of it. A `Retry-After`, of which at
    most `max_wait` counts, is added to it. If the wait would outlast `Timeouts.total`, the error is
    raised immediately.

    :raises ValueError: If a number is out of range.
    """

    attempts: int = 3
    """Maximum number of attempts; 1 disables retries."""
    connection_errors: bool = True
    """Retry if connecting failed, or if the connection closed before the first byte of a response.
    A kept-alive connection that the site had closed is replaced immediately, without a wait."""
    statuses: frozenset[int] = frozenset({429, 502, 503, 504})
    """HTTP statuses to retry. 429 includes rate limits that a site reports with status 500."""
    interruptions: bool = True
    """Retry if the reply ended early, before its first text."""
    timeouts: bool = False
    """Retry after a `connect` or `first_chunk` timeout. A `total` timeout is never retried."""
    backoff: float = 0.5
    """Maximum first wait, in seconds."""
    backoff_max: float = 20.0
    """Maximum wait without a `Retry-After`, in seconds."""
    max_wait: float = 60.0
    """Maximum of a `Retry-After` that is waited for, in seconds."""

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int):
            raise ValueError(f"retry: attempts must be an int, not {self.attempts!r}")
        if self.attempts < 1:
            raise ValueError("retry: attempts must be at least 1; 1 disables retries")
        for name in ("backoff", "backoff_max", "max_wait"):
            seconds = getattr(self, name)
            if not isinstance(seconds, int | float) or math.isnan(seconds) or seconds < 0:
                raise ValueError(f"retry: {name} must be a number of seconds, at least 0")
        object.__setattr__(self, "statuses", frozenset(self.statuses))

    def covers(self, error: GPROChatError) -> bool:
        """Return True if a request that failed before its first text may be retried."""
        if isinstance(error, SiteConnectionError):
            return self.connection_errors and error.retryable
        if isinstance(error, ReplyInterruptedError):
            return self.interruptions
        if isinstance(error, RequestTimeoutError):
            return self.timeouts and error.phase != "total"
        status = 429 if isinstance(error, RateLimitError) else getattr(error, "status", None)
        return status in self.statuses

    def wait(self, attempt: int, error: GPROChatError) -> float:
        """Return the seconds to wait after a failed attempt.

        :param attempt: The attempt's number, from 1.
        """
        longest = min(self.backoff_max, self.backoff * 2.0 ** min(attempt - 1, 60))
        jittered = longest * random.uniform(0.5, 1.0)
        asked = error.retry_after if isinstance(error, SiteError) else None
        return jittered if asked is None else min(asked, self.max_wait) + jittered
