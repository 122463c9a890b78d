"""The four clocks of a request, and the one cancel scope that enforces them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal

import anyio

from gprochat_anyio._errors import Phase, RequestTimeoutError


class _NotGiven(Enum):
    token = 0


RunningPhase = Literal["connect", "first_chunk", "idle"]
"""The phases that have a clock of their own."""

_NOT_GIVEN: Final = _NotGiven.token
_Seconds = float | Literal[_NotGiven.token] | None

_DEFAULTS: dict[Phase, float | None] = {
    "connect": 10.0,
    "first_chunk": 60.0,
    "idle": 30.0,
    "total": 600.0,
}

_ADVICE: dict[Phase, tuple[str, str]] = {
    "connect": ("no connection to the site", "check its URL and the network"),
    "first_chunk": ("no text of the reply", "give first_chunk more for a model that thinks long"),
    "idle": ("no more text of the reply", "ask again, or give idle more"),
    "total": ("no end of the request", "give total more, or ask for less"),
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
        if not isinstance(override, Timeouts | None):
            raise ValueError(f"timeouts must be Timeouts or None, not {type(override).__name__}")
        return self if override is None else override.over(self)


def _checked(name: str, limit: float | None) -> float | None:
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise ValueError(f"timeouts: {name} is a number of seconds or None, not {limit!r}")
    if math.isnan(limit) or limit < 0:
        raise ValueError(f"timeouts: {name} must not be negative or NaN; None is no limit")
    return float(limit)


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
