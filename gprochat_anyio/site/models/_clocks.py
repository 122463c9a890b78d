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

        with clocks.enforced():
            clocks.start("connect")
            ...
            return result
        raise clocks.timeout_error()  # only reached when a clock ran out

    Moving a deadline costs more than a read does, so a loop lets it pass, and looks then whether
    it still meant anything::

        scope = clocks.enforced("idle")
        while True:
            with scope:
                while await something_that_loses_nothing_when_cancelled():
                    clocks.renew()
                return
            if clocks.ran_out():
                raise clocks.timeout_error()
            scope = clocks.enforced_again()

    Where a scope can not stay open, a task beside it does the same by `watch`.

    :param timeouts: the limits
    :param began: when the request began, by the event loop's clock
    """

    __slots__ = ("_limit", "_paused", "_phase", "_scope", "_since", "began", "ends", "timeouts")

    def __init__(self, timeouts: Timeouts, began: float) -> None:
        self.timeouts = timeouts
        self.began = began
        self.ends = math.inf if timeouts.total is None else began + timeouts.total
        """When `total` runs out, by the event loop's clock."""
        self._phase: Phase = "total"
        self._limit, self._since = math.inf, began
        self._paused = False
        self._scope: anyio.CancelScope | None = None

    def enforced(self, phase: RunningPhase | None = None) -> anyio.CancelScope:
        """A fresh cancel scope, to be entered at once, on `total` and on the clock of a phase,
        which starts anew."""
        if phase is None:
            self._phase, self._limit, self._since = "total", math.inf, self.began
            self._paused = False
        else:
            self._begin(phase)
        return self.enforced_again()

    def enforced_again(self) -> anyio.CancelScope:
        """A fresh cancel scope, to be entered at once; the clocks go on as they are."""
        self._scope = anyio.CancelScope(deadline=self._deadline())
        return self._scope

    def start(self, phase: RunningPhase) -> float:
        """Start the clock of a phase anew, and give its time; that of the phase before stops."""
        assert self._scope is not None
        self._begin(phase)
        self._scope.deadline = self._deadline()
        return self._since

    def renew(self) -> None:
        """Start the clock of the phase again, for `ran_out`; the scope keeps its deadline."""
        self._since = anyio.current_time()
        self._paused = False

    def pause(self, phase: RunningPhase) -> None:
        """Let the clock of a phase stand still until `renew`; `total` goes on."""
        self._begin(phase)
        self._paused = True

    def ran_out(self) -> bool:
        """Whether a clock has run out."""
        return anyio.current_time() >= (self.ends if self._paused else self._deadline())

    async def watch(self) -> None:
        """Wait until a clock has run out."""
        while not self.ran_out():
            if self._paused:  # renewed at any time from now on, it runs out no earlier than this
                self._since = anyio.current_time()
            await anyio.sleep_until(self._deadline())

    def timeout_error(self, partial_text: str = "") -> RequestTimeoutError:
        """The error for the clock that ran out."""
        phase, since = self._phase, self._since
        if self._paused or since + self._limit >= self.ends:
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
        self._paused = False

    def _deadline(self) -> float:
        return min(self._since + self._limit, self.ends)
