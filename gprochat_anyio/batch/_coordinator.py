"""The coordinator of a running batch's shards: limits, pauses and progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from typing import Final, NamedTuple

import anyio

from gprochat_anyio._request.leased_limiter import Demand
from gprochat_anyio._request.request_events import Observed

from ._lease_book import LEASED_FOR, LeaseBook, LeasedLimits
from ._summary import BatchSummary

WATCH_FOR: Final = 20.0
"""Time after which a watch ends without a change, in seconds."""

SAME_PAUSE: Final = 0.5
"""Time by which a pause must be longer than the announced one to be announced itself, in seconds.
Concurrent requests are refused at about the same time."""


class Report(NamedTuple):
    """Report of a shard that renews its lease."""

    demand: Demand
    held: LeasedLimits | None = None
    """The shard's current limits. `None` before its first lease."""
    summary: BatchSummary | None = None
    """The shard's progress. `None` before it has begun."""


class Lease(NamedTuple):
    """Lease of a shard, with the pauses and the stop that it must follow."""

    limits: LeasedLimits
    pauses: dict[Observed, float]
    """Time until each paused endpoint may be used again, in seconds."""
    stop: bool
    """True if the shard must not start any more prompts."""
    version: int
    """Version of the pauses and of `stop`, for `Coordinator.watch`."""


class Coordinator:
    """Coordinator that leases starts to shards, announces pauses and collects progress.

    :param max_at_once: Maximum number of concurrent requests of all shards. `None` for no limit.
    :param max_per_second: Maximum number of starts per second of all shards. `None` for no limit.
    :param most: Maximum number of concurrent requests of one shard.
    :param is_second: Whether it replaces a coordinator that was lost with its leases.
    """

    def __init__(
        self,
        max_at_once: int | None,
        max_per_second: float | None,
        *,
        most: int,
        is_second: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        learns_until = clock() + LEASED_FOR if is_second else -inf
        self._book = LeaseBook(max_at_once, max_per_second, most=most, learns_until=learns_until)
        self._summaries: dict[int, BatchSummary] = {}
        self._pauses: dict[Observed, float] = {}
        self._version = 0
        self._stopped = False
        self._changed = anyio.Event()

    async def renew(self, shard: int, report: Report) -> Lease:
        """Renew a shard's lease."""
        now = self._clock()
        if report.summary is not None:
            self._summaries[shard] = report.summary
        limits = self._book.renew(shard, report.demand, report.held, now)
        pauses = {end: until - now for end, until in self._pauses.items() if until > now}
        return Lease(limits, pauses, self._stopped, self._version)

    async def watch(self, version: int) -> None:
        """Wait for a change since a version, for at most `WATCH_FOR`."""
        with anyio.move_on_after(WATCH_FOR):
            while self._version == version:
                await self._changed.wait()

    async def pause(self, endpoint: Observed, seconds: float) -> None:
        """Pause an endpoint for all shards."""
        until = self._clock() + seconds
        if until > self._pauses.get(endpoint, -inf) + SAME_PAUSE:
            self._pauses[endpoint] = until
            self._change()

    async def release(self, shard: int) -> None:
        """Take back the lease of a shard that has ended, and forget its progress."""
        self._book.release(shard)
        self._summaries.pop(shard, None)

    async def stop(self) -> None:
        """Stop all shards from starting prompts."""
        if not self._stopped:
            self._stopped = True
            self._change()

    async def is_stopped(self) -> bool:
        """Return True once the batch is stopped."""
        return self._stopped

    async def progress(self) -> dict[int, BatchSummary]:
        """Return the running shards' summaries."""
        return self._summaries

    def _change(self) -> None:
        self._version += 1
        self._changed.set()
        self._changed = anyio.Event()
