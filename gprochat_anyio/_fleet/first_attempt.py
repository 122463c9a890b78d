"""The part of a client's `Retry` that remains within a fleet."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

from gprochat_anyio._errors import GPROChatError, RateLimitError, SiteConnectionError
from gprochat_anyio._settings import Retry


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstAttempt(Retry):
    """One attempt: after a failure the fleet decides.

    Two causes are not failures of the endpoint. A kept connection that it had closed is replaced.
    And where an adaptive limiter finds out how many requests the endpoint accepts, a refused one
    waits for its turn there, as it would without a fleet.
    """

    waits_for_turn: bool = False
    """True if there is such a limiter."""

    @classmethod
    def of(cls, retry: Retry, *, waits_for_turn: bool = False) -> Self:
        """Return what remains of a client's `Retry`."""
        own = {field.name: getattr(retry, field.name) for field in fields(Retry)}
        own["attempts"] = max(retry.attempts, 2)
        return cls(**own, waits_for_turn=waits_for_turn and retry.attempts > 1)

    def covers(self, error: GPROChatError) -> bool:
        """Return True for the two."""
        if isinstance(error, RateLimitError):
            return self.waits_for_turn and error.retry_after is None and 429 in self.statuses
        return isinstance(error, SiteConnectionError) and error.stale
