"""Limits that hold for the requests to all endpoints together. This module only decides."""

from __future__ import annotations

from math import inf

from .lane import Lane, LaneRequest


class StartLimits:
    """The maximum number of concurrent requests, and the minimum time between two starts.

    :param max_at_once: Maximum number of concurrent requests; infinite for no limit.
    :param interval: Minimum time between two starts, in seconds.
    """

    __slots__ = ("_held", "_interval", "_last", "allowed", "max_at_once", "running", "started")

    def __init__(self, max_at_once: float, interval: float) -> None:
        self.max_at_once = max_at_once
        self.allowed = max_at_once
        """Current maximum number of concurrent requests."""
        self.running = 0
        self.started = 0
        """Number of requests that have started so far."""
        self._interval = interval
        self._last = -inf  # the time of the latest start
        self._held = 0  # running requests that their consumers may block

    def allow(self, at_once: float, interval: float, now: float) -> None:
        """Change the limits of later starts.

        :param at_once: Maximum number of concurrent requests, unless `max_at_once` is less.
        :param interval: Minimum time between two starts, in seconds; infinite to start no request.
        """
        if self._last == -inf:  # the interval also applies to the first start
            self._last = now
        self.allowed, self._interval = min(at_once, self.max_at_once), interval

    def start(self, request: LaneRequest, now: float) -> None:
        """Record the start of a request."""
        self._last = now
        self.running += 1
        self.started += 1
        self._held += request.may_be_held

    def end(self, request: LaneRequest) -> None:
        """Record the end of a request."""
        self.running -= 1
        self._held -= request.may_be_held

    def due(self, request: LaneRequest, lane: Lane) -> float:
        """Return the time from which a request may start.

        The time is infinite if the request must wait for another one.
        """
        if self.running >= self.allowed:
            return inf
        if request.may_be_held and self._held >= self.max_at_once - 1:
            return inf  # the last start is that of a consumer's own request
        return max(
            self._last + self._interval,
            lane.resumes,
            lane.has_room_from(for_consumer=not request.may_be_held),
        )
