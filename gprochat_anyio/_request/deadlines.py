"""The four deadlines of a request. The reactor enforces them."""

from __future__ import annotations

from math import inf
from typing import Literal

from gprochat_anyio._errors import Phase, RequestTimeoutError
from gprochat_anyio._settings import Timeouts

_LINGERS = 1.0
"""Maximum wait for the end of a response whose text is complete, in seconds. An API's last events
arrive with the end of the text or immediately after it."""

PhaseWithLimit = Literal["connect", "first_chunk", "idle"]
"""The phases with a limit of their own. `total` spans all of them."""

_ADVICE: dict[Phase, tuple[str, str]] = {
    "connect": ("no connection", "check the URL and the network"),
    "first_chunk": ("no text of the reply", "increase first_chunk for a slow model"),
    "idle": ("no more text of the reply", "ask again, or increase idle"),
    "total": ("the request did not end", "increase total, or ask for a shorter reply"),
}


class Deadlines:
    """The deadlines of one request, in all its phases.

    :param timeouts: The time limits.
    :param began: The time at which the request started, by the event loop's clock.
    """

    __slots__ = ("_limit", "_phase", "began", "ends", "lingers", "since", "timeouts")

    def __init__(self, timeouts: Timeouts, began: float) -> None:
        self.timeouts: Timeouts = timeouts
        self.began: float = began
        self.ends: float = inf if timeouts.total is None else began + timeouts.total
        """The time at which `total` has passed."""
        self.since: float = began
        """The time at which the phase's limit started. Assign the time of the latest text to it."""
        self.lingers: bool = False
        """True once the text is complete and only the end of the response is missing."""
        self._phase: Phase = "total"
        self._limit = inf

    def restart(self, now: float) -> None:
        """Restart `total`, after a wait that does not count."""
        total = self.timeouts.total
        self.began = self.since = now
        self.ends = inf if total is None else now + total

    def start(self, phase: PhaseWithLimit, now: float) -> None:
        """Start a phase."""
        limit = getattr(self.timeouts, phase)
        self._phase, self._limit = phase, inf if limit is None else limit
        self.since = now

    def suspend(self) -> None:
        """Suspend all deadlines but `total`, while the request waits for a slot or the next
        attempt."""
        self._phase, self._limit, self.since = "total", inf, self.began

    def linger(self, now: float) -> None:
        """Start the short wait for the end of a response whose text is complete."""
        self.lingers = True
        self._limit, self.since = _LINGERS, now

    def due(self) -> float:
        """Return the current time of the next deadline."""
        return min(self.since + self._limit, self.ends)

    def earliest(self) -> float:
        """Return a lower bound for the deadlines of this phase and of `idle`."""
        idle = self.timeouts.idle
        limit = self._limit if idle is None else min(self._limit, idle)
        return min(self.since + limit, self.ends)

    def error(self, now: float) -> RequestTimeoutError:
        """Return the error for the deadline that has passed."""
        if self.since + self._limit >= self.ends:
            return self.total_error(now)
        return self._error(self._phase, now - self.since)

    def total_error(self, now: float) -> RequestTimeoutError:
        """Return the error for `total`."""
        return self._error("total", now - self.began)

    def _error(self, phase: Phase, elapsed: float) -> RequestTimeoutError:
        limit = getattr(self.timeouts, phase)
        what, advice = _ADVICE[phase]
        return RequestTimeoutError(
            f"{what} within {limit:g} s (Timeouts.{phase}): {advice}",
            phase=phase,
            limit=limit,
            elapsed=elapsed,
        )
