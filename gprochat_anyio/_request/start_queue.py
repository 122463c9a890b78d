"""The queue of requests that wait for a start at one endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from math import inf
from typing import Generic, TypeVar

import anyio

from .lane import Lane, LaneRequest

_FEW = 64
"""Minimum size of heaps that are worth compacting."""

_LEFT_BEHIND = 4
"""Number of entries per waiting request at which the heaps are compacted."""


class QueuedRequest(LaneRequest):
    """A request that may wait in a queue.

    :param order: The request's place among all requests.
    """

    __slots__ = ("ends", "is_given_up", "is_waiting", "order", "signal")

    def __init__(self, order: int, *, may_be_held: bool) -> None:
        super().__init__(may_be_held=may_be_held)
        self.order = order
        self.ends = inf
        """The latest time to start, by the event loop's clock."""
        self.is_waiting = False
        self.is_given_up = False
        """True if the request should stop waiting, because its endpoint accepts no request."""
        self.signal: anyio.Event | None = None
        """Wakes the request's task."""

    def __lt__(self, other: QueuedRequest) -> bool:
        return self.order < other.order


_Queued = TypeVar("_Queued", bound=QueuedRequest)


class StartQueue(Lane, Generic[_Queued]):
    """The concurrency limit of one endpoint, and the requests that wait for it."""

    __slots__ = ("__weakref__", "_count", "_free", "_held_up")

    def __init__(self, most: float, *, adaptive: bool) -> None:
        super().__init__(most, adaptive=adaptive)
        self._count = 0
        # heaps; requests that have left are removed when they are first, or when they prevail
        self._free: list[_Queued] = []
        self._held_up: list[_Queued] = []

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[_Queued]:
        for waiters in (self._free, self._held_up):
            yield from (waiter for waiter in waiters if waiter.is_waiting)

    def add(self, waiter: _Queued) -> None:
        """Add a waiting request."""
        waiter.is_waiting = True
        self._count += 1
        heappush(self._held_up if waiter.may_be_held else self._free, waiter)

    def remove(self, waiter: _Queued) -> None:
        """Remove a waiting request."""
        waiter.is_waiting = False
        self._count -= 1
        if (
            not self._count
            or len(self._free) + len(self._held_up) > _FEW + _LEFT_BEHIND * self._count
        ):
            for waiters in (self._free, self._held_up):
                waiters[:] = [kept for kept in waiters if kept.is_waiting]
                heapify(waiters)

    def heads(self) -> Iterator[_Queued]:
        """Yield the first request that its consumer may block, and the first of the others."""
        for waiters in (self._free, self._held_up):
            while waiters and not waiters[0].is_waiting:
                heappop(waiters)
            if waiters:
                yield waiters[0]
