"""The retry policy of a client within a fleet."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

from gprochat_anyio._errors import GPROChatError, RateLimitError, SiteConnectionError
from gprochat_anyio._settings import Retry


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstAttempt(Retry):
    """Policy of a single attempt, after which the fleet decides.

    Two cases are retried, because the endpoint has not failed: a kept-alive connection that it had
    closed, and, with an adaptive limiter, a request beyond the number that it accepts. That request
    waits for its next start at the same endpoint, as it would without a fleet.
    """

    waits_for_turn: bool = False
    """True if there is an adaptive limiter."""

    @classmethod
    def of(cls, retry: Retry, *, waits_for_turn: bool = False) -> Self:
        """Return the policy within a fleet for a client's `Retry`."""
        own = {field.name: getattr(retry, field.name) for field in fields(Retry)}
        own["attempts"] = max(retry.attempts, 2)
        return cls(**own, waits_for_turn=waits_for_turn and retry.attempts > 1)

    def covers(self, error: GPROChatError) -> bool:
        """Return True for the two cases."""
        if isinstance(error, RateLimitError):
            return self.waits_for_turn and error.retry_after is None and 429 in self.statuses
        return isinstance(error, SiteConnectionError) and error.stale
