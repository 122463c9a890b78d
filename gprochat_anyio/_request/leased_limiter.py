"""Limiters whose limits are leased, so that several processes can share them."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import NamedTuple

import anyio

from .limiter import Limiter
from .request_events import Observed


class Demand(NamedTuple):
    """The demand of a limiter, from which its next lease is decided."""

    running: int
    """Number of requests that have started but not ended."""
    waiting: int
    """Number of requests that wait for their start."""
    started: int
    """Number of requests that have started so far."""


class LeasedLimiter(Limiter):
    """A limiter whose limits are set by leases. Without a lease, no request starts.

    :param max_at_once: Upper bound of the concurrency of a lease.
    :param has_rate: True if leases limit the rate of starts.
    :param adaptive: As for `Limiter`.
    :param on_retry_after: Called with an endpoint that has refused a request with a `Retry-After`,
        and the seconds of the pause that follows. It must not raise.
    """

    def __init__(
        self,
        *,
        max_at_once: int,
        has_rate: bool,
        adaptive: bool = True,
        on_retry_after: Callable[[Observed, float], object],
    ) -> None:
        rate = 1.0 if has_rate else None  # has no effect before the first lease
        super().__init__(max_at_once=max_at_once, max_per_second=rate, adaptive=adaptive)
        self._starts.limits.allowed = 0
        self._starts.on_retry_after = on_retry_after

    @property
    def demand(self) -> Demand:
        """The limiter's current demand."""
        limits = self._starts.limits
        return Demand(limits.running, self._starts.waiting, limits.started)

    def lease(self, at_once: int, per_second: float | None) -> None:
        """Replace the limits. Running requests continue.

        :param at_once: Maximum number of concurrent requests.
        :param per_second: Maximum number of starts per second. `None` for no limit.
        """
        interval = 0.0
        if per_second is not None:
            interval = 1 / per_second if per_second else inf
        self._starts.allow(at_once, interval, anyio.current_time())

    def pause(self, endpoint: Observed, seconds: float) -> None:
        """Pause the requests to an endpoint, for some seconds."""
        self._starts.pause(endpoint, anyio.current_time() + seconds)
