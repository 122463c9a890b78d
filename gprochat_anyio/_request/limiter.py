"""Limiters, which any number of clients and fan-outs may share."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import anyio

from .starts import Starts


@dataclass(frozen=True, slots=True)
class LimiterStatistics:
    """Statistics of a limiter."""

    running: int
    """Number of requests that have started but not ended."""
    waiting: int
    """Number of requests that wait for their start."""
    refusals: int
    """Number of requests that rate limits (HTTP status 429) have refused so far."""
    limit: int | None
    """Current maximum number of concurrent requests: `max_at_once`, or less if every endpoint
    accepts less. `None` for no limit."""
    paused: float
    """Time until the first paused endpoint is used again, in seconds. 0.0 if none is paused."""


class Limiter:
    """Limiter of concurrency and rate, shared by clients, fan-outs and tasks of one event loop.

    Every request acquires its start, including retries and hedges. Starts are granted in order and
    evenly spaced. A retry keeps its request's place in the queue. Cancelling a waiting request
    removes it from the queue.

    The limit adapts to each endpoint. An endpoint that refuses a request with status 429 accepts no
    more concurrent requests than it is serving at that moment: its limit drops to that number, and
    single requests beyond it then probe for more, less often after each refused probe. A
    `Retry-After` also pauses that endpoint, for at most `Retry.max_wait`. Requests to other
    endpoints continue.

    :param max_at_once: Maximum number of concurrent requests, each counted from its start to the
        end of its reply. `None` for no limit.
    :param max_per_second: Maximum number of starts per second. Starts are at least
        `1 / max_per_second` seconds apart. `None` for no limit.
    :param adaptive: Adapt the limit to each endpoint. If False, `max_at_once` is constant.
    :raises ValueError: If an argument is invalid. The message names it.
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
        """Maximum number of concurrent requests. `None` for no limit."""
        return self._max_at_once

    def statistics(self) -> LimiterStatistics:
        """Return the limiter's current statistics.

        :raises RuntimeError: If no event loop is running.
        """
        starts, now = self._starts, anyio.current_time()
        limits = starts.limits
        lanes = tuple(starts.lanes.values())
        limit = min(limits.max_at_once, sum(lane.limit for lane in lanes) or inf)
        paused = min((lane.resumes for lane in lanes if lane.resumes > now), default=now)
        return LimiterStatistics(
            running=limits.running,
            waiting=starts.waiting,
            refusals=starts.refusals,
            limit=None if limit == inf else int(limit),
            paused=paused - now,
        )


def starts_of(limiter: Limiter) -> Starts:
    """Return the scheduler of a limiter's starts."""
    return limiter._starts  # noqa: SLF001 - of a class in this module


def check_limits(max_at_once: object, max_per_second: object, adaptive: object) -> None:
    """Check the limits.

    :raises ValueError: If one is invalid. The message names it.
    """
    if max_at_once is not None and (
        isinstance(max_at_once, bool) or not isinstance(max_at_once, int) or max_at_once < 1
    ):
        raise ValueError("max_at_once must be an int of at least 1, or None for no limit")
    if max_per_second is not None and (
        isinstance(max_per_second, bool)
        or not isinstance(max_per_second, int | float)
        or not 0 < max_per_second < inf
    ):
        raise ValueError("max_per_second must be a number above 0, or None for no limit")
    if not isinstance(adaptive, bool):
        raise ValueError("adaptive must be True or False")


def check_leaves_one(name: str, most: float | None, owner: str) -> None:
    """Check that a limit leaves one request for the consumer of a fan-out.

    :param name: The argument that sets the limit.
    :param owner: The object or function that takes the argument.
    :raises ValueError: If it does not. The message says what to change.
    """
    if most == 1:
        raise ValueError(
            f"with {name}=1, a reply that waits for the consumer would block the consumer's "
            f"requests: give {owner} a {name} of at least 2, or use as_completed"
        )
