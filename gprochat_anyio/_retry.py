"""When a request is tried again, and after how long. Only ever before its first text."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from ._errors import (
    GPROChatError,
    RateLimitError,
    ReplyInterruptedError,
    RequestTimeoutError,
    SiteConnectionError,
    SiteError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Which failures to get the first text are tried again. Nothing is retried after that text.

    The wait before attempt n + 1 is drawn evenly from the upper half of
    `min(backoff_max, backoff * 2 ** (n - 1))` seconds. An answer's `Retry-After` is waited for in
    full instead, with that same jitter on top. A wait that would outlast `Timeouts.total` is not
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

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int):
            raise ValueError(f"retry: attempts is a whole number, not {self.attempts!r}")
        if self.attempts < 1:
            raise ValueError("retry: attempts must be at least 1, which is no retry")
        for name in ("backoff", "backoff_max"):
            seconds = getattr(self, name)
            if not isinstance(seconds, int | float) or math.isnan(seconds) or seconds < 0:
                raise ValueError(f"retry: {name} must be a number of seconds, at least 0")
        object.__setattr__(self, "statuses", frozenset(self.statuses))

    def covers(self, error: GPROChatError) -> bool:
        """Whether an error before the first text is one to try again after."""
        if isinstance(error, SiteConnectionError):
            return self.connection_errors
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
        return jittered if asked is None else asked + jittered
