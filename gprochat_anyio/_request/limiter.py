"""The limits of what any number of clients and fan-outs ask together."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import anyio

from .starts import Starts


@dataclass(frozen=True, slots=True)
class LimiterStatistics:
    """A limiter's state at one moment."""

    running: int
    """Requests that have started and not ended."""
    waiting: int
    """Requests that wait for their start."""
    refusals: int
    """Requests that a rate limit (HTTP status 429) has refused so far."""
    limit: int | None
    """The number of requests that may run at once now: `max_at_once`, or less if each endpoint
    has been found to accept less. None if there is no limit."""
    paused: float
    """Seconds until the first endpoint that asked for a pause is asked again; 0.0 if none did."""


class Limiter:
    """Limits the requests of clients, fan-outs and tasks of one event loop, together.

    Each request acquires its start, retries and hedges included: first come, first served, evenly
    spaced. A request that is tried again keeps its place. Cancelled while it waits, it leaves the
    queue.

    An endpoint that refuses a request with a rate limit (HTTP status 429) is taken at its word:
    without a `Retry-After`, it accepts no more requests at once than it is answering at that
    moment. Its limit drops to that number, and single requests beyond it probe for more, less often
    after each that is refused. A `Retry-After` also pauses that endpoint, for at most
    `Retry.max_wait`. Requests to other endpoints go on.

    :param max_at_once: The number of requests that run at the same time, from the start to the end
        of the reply, or None for no limit.
    :param max_per_second: The number of requests that start in a second: each no sooner than
        `1 / max_per_second` seconds after the one before. None for no limit.
    :param adaptive: False to keep `max_at_once` for every endpoint, whatever it refuses.
    :raises ValueError: For an argument that is invalid; the message names it.
    """

    def __init__(
        self,
        *,
        max_at_once: int | None = None,
        max_per_second: float | None = None,
        adaptive: bool = True,
    ) -> None:
        check_limits(max_at_once, max_per_second, adaptive)
        self._max_at_once = max_at_once
        self._max_per_second = max_per_second
        self._starts = Starts(
            inf if max_at_once is None else max_at_once,
            0.0 if max_per_second is None else 1 / max_per_second,
            adaptive=adaptive,
        )

    def __repr__(self) -> str:
        return (
            f"Limiter(max_at_once={self._max_at_once}, max_per_second={self._max_per_second}, "
            f"adaptive={self._starts.adaptive})"
        )

    @property
    def max_at_once(self) -> int | None:
        """The greatest number of requests that run at the same time, or None for no limit."""
        return self._max_at_once

    def statistics(self) -> LimiterStatistics:
        """Return the state at this moment.

        :raises RuntimeError: Outside an event loop.
        """
        starts, now = self._starts, anyio.current_time()
        lanes = tuple(starts.lanes.values())
        limit = min(starts.max_at_once, sum(lane.limit for lane in lanes) or inf)
        paused = min((lane.resumes for lane in lanes if lane.resumes > now), default=now)
        return LimiterStatistics(
            running=starts.running,
            waiting=starts.waiting,
            refusals=starts.refusals,
            limit=None if limit == inf else int(limit),
            paused=paused - now,
        )


def starts_of(limiter: Limiter) -> Starts:
    """Return what decides when requests start."""
    return limiter._starts  # noqa: SLF001 - this module's own


def check_limits(max_at_once: object, max_per_second: object, adaptive: object) -> None:
    """Make sure of the limits.

    :raises ValueError: For one that is invalid; the message names it.
    """
    if max_at_once is not None and (
        isinstance(max_at_once, bool) or not isinstance(max_at_once, int) or max_at_once < 1
    ):
        raise ValueError("max_at_once must be a whole number, at least 1, or None for no limit")
    if max_per_second is not None and (
        isinstance(max_per_second, bool)
        or not isinstance(max_per_second, int | float)
        or not 0 < max_per_second < inf
    ):
        raise ValueError("max_per_second must be a number above 0, or None for no limit")
    if not isinstance(adaptive, bool):
        raise ValueError("adaptive must be True or False")


def check_leaves_one(name: str, most: float | None, owner: str) -> None:
    """Make sure that a limit leaves one request for the consumer of a fan-out.

    :param name: of the argument that sets the limit
    :param owner: takes that argument
    :raises ValueError: If it does not; the message says what to change.
    """
    if most == 1:
        raise ValueError(
            f"with {name}=1, text that waits for the consumer would keep it from sending requests: "
            f"give {owner} a {name} of at least 2, or use as_completed"
        )
