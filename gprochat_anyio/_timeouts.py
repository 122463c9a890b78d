"""The four clocks of a request, and the one cancel scope that enforces them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

import anyio

from ._errors import Phase, RequestTimeoutError


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
    _given: frozenset[str]

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

    :param timeouts: the limits
    :param began: when the request began, by the event loop's clock
    """

    __slots__ = ("_limit", "_phase", "_scope", "_since", "began", "ends", "timeouts")

    def __init__(self, timeouts: Timeouts, began: float) -> None:
        self.timeouts = timeouts
        self.began = began
        self.ends = math.inf if timeouts.total is None else began + timeouts.total
        """When `total` runs out, by the event loop's clock."""
        self._phase: Phase = "total"
        self._limit = timeouts.total
        self._since = began

    def enforced(self, *, shield: bool = False) -> anyio.CancelScope:
        """A fresh cancel scope, to be entered at once, whose deadline is that of the phase.

        :param shield: whether cancellation from outside stays outside
        """
        self._scope = anyio.CancelScope(deadline=self.ends, shield=shield)
        self._phase, self._limit, self._since = "total", self.timeouts.total, self.began
        return self._scope

    def start(self, phase: Literal["connect", "first_chunk", "idle"]) -> float:
        """Start the clock of a phase anew, and give its time; that of the phase before stops."""
        limit: float | None = getattr(self.timeouts, phase)
        now = anyio.current_time()
        if limit is None or now + limit >= self.ends:
            self.pause()
        else:
            self._phase, self._limit, self._since = phase, limit, now
            self._scope.deadline = now + limit
        return now

    def pause(self) -> None:
        """Stop the clock of the phase; only `total` goes on."""
        self._phase, self._limit, self._since = "total", self.timeouts.total, self.began
        self._scope.deadline = self.ends

    def cancel(self) -> None:
        """Cancel what is being enforced, from any task of the event loop."""
        self._scope.cancel()

    def timeout_error(self, partial_text: str = "") -> RequestTimeoutError:
        """The error for the clock that ran out."""
        limit = self._limit or 0.0
        what, advice = _ADVICE[self._phase]
        return RequestTimeoutError(
            f"{what} within {limit:g} s (Timeouts.{self._phase}): {advice}",
            phase=self._phase,
            limit=limit,
            elapsed=anyio.current_time() - self._since,
            partial_text=partial_text,
        )
