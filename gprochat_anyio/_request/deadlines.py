"""The four deadlines of a request. Decides only: the reactor's heap keeps the time."""

from __future__ import annotations

from math import inf
from typing import Literal

from gprochat_anyio._errors import Phase, RequestTimeoutError
from gprochat_anyio._settings import Timeouts

_LINGERS = 1.0
"""Seconds: an API's last events come with the text's end, or at once behind it."""

PhaseWithLimit = Literal["connect", "first_chunk", "idle"]
"""The phases with a limit of their own; `total` spans all of them."""

_ADVICE: dict[Phase, tuple[str, str]] = {
    "connect": ("no connection", "check the URL and the network"),
    "first_chunk": ("no text of the reply", "give first_chunk more for a model that thinks long"),
    "idle": ("no more text of the reply", "ask again, or give idle more"),
    "total": ("no end of the request", "give total more, or ask for less"),
}


class Deadlines:
    """Knows which deadline is next, in whichever phase the request is.

    :param timeouts: the limits
    :param began: when the request began, by the event loop's clock
    """

    __slots__ = ("_limit", "_phase", "began", "ends", "lingers", "since", "timeouts")

    def __init__(self, timeouts: Timeouts, began: float) -> None:
        self.timeouts = timeouts
        self.began = began
        self.ends = inf if timeouts.total is None else began + timeouts.total
        """When `total` runs out."""
        self.since = began
        """When the phase began, or its limit was renewed: assign the time of the latest text."""
        self.lingers = False
        """True once only the end of the response is missing."""
        self._phase: Phase = "total"
        self._limit = inf

    def restart(self, now: float) -> None:
        """Begin the request anew: it has only waited for its turn until now."""
        total = self.timeouts.total
        self.began = self.since = now
        self.ends = inf if total is None else now + total

    def start(self, phase: PhaseWithLimit, now: float) -> None:
        """Begin a phase."""
        limit = getattr(self.timeouts, phase)
        self._phase, self._limit = phase, inf if limit is None else limit
        self.since = now

    def suspend(self) -> None:
        """Leave only `total`: the request waits for a connection slot, or for the next attempt."""
        self._phase, self._limit, self.since = "total", inf, self.began

    def linger(self, now: float) -> None:
        """Wait a little longer for the end of a response whose text is complete."""
        self.lingers = True
        self._limit, self.since = _LINGERS, now

    def due(self) -> float:
        """Return the time of the next deadline, as things stand."""
        return min(self.since + self._limit, self.ends)

    def earliest(self) -> float:
        """Return a time that no deadline of this phase or of `idle` can come before."""
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
