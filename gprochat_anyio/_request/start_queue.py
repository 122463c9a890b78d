"""The requests that wait for a start at one endpoint, in the order in which they began."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from math import inf
from typing import Generic, TypeVar

import anyio

from .lane import Lane, LaneRequest

_FEW = 64
"""Entries of the heaps that are not worth clearing up."""

_LEFT_BEHIND = 4
"""Entries for each that still waits, after which those that have left are cleared away."""


class QueuedRequest(LaneRequest):
    """A request that may wait.

    :param order: its place among all requests
    """

    __slots__ = ("ends", "is_given_up", "is_waiting", "order", "signal")

    def __init__(self, order: int, *, may_be_held: bool) -> None:
        super().__init__(may_be_held=may_be_held)
        self.order = order
        self.ends = inf
        """The latest time to start, by the event loop's clock."""
        self.is_waiting = False
        self.is_given_up = False
        """True if it need not wait any longer: its endpoint answers nobody."""
        self.signal: anyio.Event | None = None
        """Wakes its task."""

    def __lt__(self, other: QueuedRequest) -> bool:
        return self.order < other.order


_Queued = TypeVar("_Queued", bound=QueuedRequest)


class StartQueue(Lane, Generic[_Queued]):
    """A lane, and the requests that wait for a start in it."""

    __slots__ = ("__weakref__", "_count", "_free", "_held_up")

    def __init__(self, most: float, *, adaptive: bool) -> None:
        super().__init__(most, adaptive=adaptive)
        self._count = 0
        # heaps, with those that have left until they come first, or are most of them
        self._free: list[_Queued] = []
        self._held_up: list[_Queued] = []

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[_Queued]:
        for waiters in (self._free, self._held_up):
            yield from (waiter for waiter in waiters if waiter.is_waiting)

    def add(self, waiter: _Queued) -> None:
        """Let a request wait."""
        waiter.is_waiting = True
        self._count += 1
        heappush(self._held_up if waiter.may_be_held else self._free, waiter)

    def remove(self, waiter: _Queued) -> None:
        """Let a request no longer wait."""
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
        """Yield the first of those whose consumers may hold them up, and of the others."""
        for waiters in (self._free, self._held_up):
            while waiters and not waiters[0].is_waiting:
                heappop(waiters)
            if waiters:
                yield waiters[0]
