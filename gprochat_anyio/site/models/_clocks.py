"""The clocks of a request to a model's API, and the cancel scope that enforces them."""

from __future__ import annotations

import math
from typing import Literal

import anyio

from gprochat_anyio import RequestTimeoutError, Timeouts
from gprochat_anyio._errors import Phase

RunningPhase = Literal["connect", "first_chunk", "idle"]
"""The phases that have a clock of their own."""

_ADVICE: dict[Phase, tuple[str, str]] = {
    "connect": ("no connection to the site", "check its URL and the network"),
    "first_chunk": ("no text of the reply", "give first_chunk more for a model that thinks long"),
    "idle": ("no more text of the reply", "ask again, or give idle more"),
    "total": ("no end of the request", "give total more, or ask for less"),
}


class Clocks:
    """Enforces the limits of one request, by one cancel scope whose deadline follows the phase.

    ::

        with clocks.enforced("first_chunk"):
            ...
            return result
        raise clocks.timeout_error()  # only reached when a clock ran out

    :param timeouts: the limits
    :param began: when the request began, by the event loop's clock
    """

    __slots__ = ("_limit", "_phase", "_since", "began", "ends", "timeouts")

    def __init__(self, timeouts: Timeouts, began: float) -> None:
        self.timeouts = timeouts
        self.began = began
        self.ends = math.inf if timeouts.total is None else began + timeouts.total
        """When `total` runs out, by the event loop's clock."""
        self._phase: Phase = "total"
        self._limit, self._since = math.inf, began

    def enforced(self, phase: RunningPhase) -> anyio.CancelScope:
        """A fresh cancel scope, to be entered at once, on `total` and on the clock of a phase,
        which starts anew."""
        self._begin(phase)
        return self.enforced_again()

    def enforced_again(self) -> anyio.CancelScope:
        """A fresh cancel scope, to be entered at once; the clocks go on as they are."""
        return anyio.CancelScope(deadline=self._deadline())

    def timeout_error(self, partial_text: str = "") -> RequestTimeoutError:
        """The error for the clock that ran out."""
        phase, since = self._phase, self._since
        if since + self._limit >= self.ends:
            phase, since = "total", self.began
        limit = getattr(self.timeouts, phase)
        what, advice = _ADVICE[phase]
        return RequestTimeoutError(
            f"{what} within {limit:g} s (Timeouts.{phase}): {advice}",
            phase=phase,
            limit=limit,
            elapsed=anyio.current_time() - since,
            partial_text=partial_text,
        )

    def _begin(self, phase: RunningPhase) -> None:
        limit = getattr(self.timeouts, phase)
        self._phase, self._limit = phase, math.inf if limit is None else limit
        self._since = anyio.current_time()

    def _deadline(self) -> float:
        return min(self._since + self._limit, self.ends)
