"""Lease keepers of shards in threads, with the coordinator in another thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from anyio.lowlevel import checkpoint
from support.batch_site import BatchSite, batch_site_in_thread
from support.raw_site import BOUND

from gprochat_anyio import Client
from gprochat_anyio._request.leased_limiter import Demand
from gprochat_anyio._request.request_events import Observed
from gprochat_anyio.batch import BatchSummary, run_shard
from gprochat_anyio.batch._coordinator import Coordinator, Lease, Report
from gprochat_anyio.batch._lease_book import RENEW_EVERY, LeasedLimits
from gprochat_anyio.batch._lease_keeper import LeaseKeeper
from gprochat_anyio.testing import Hang, Pause, Refuse, Request, Say, Script

PROMPTS = 60

backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class UnreachableError(Exception):
    """The coordinator has ended for good."""


class LocalLessor:
    """Connection of a shard to a coordinator in another thread."""

    def __init__(self, portal: BlockingPortal, coordinator: Coordinator, shard: int) -> None:
        self.released = threading.Event()
        self.renewals = 0
        self.unanswered = 0
        """Number of the next renewals that get no reply."""
        self.fails = False
        self._coordinator = coordinator
        self._portal = portal
        self._shard = shard

    def renew(self, report: Report) -> Lease | None:
        self.renewals += 1
        if self.fails:
            raise UnreachableError
        if self.unanswered:
            self.unanswered -= 1
            return None
        return self._portal.call(self._coordinator.renew, self._shard, report)

    def wait(self, version: int, seconds: float) -> None:
        self.released.wait(min(seconds, 0.02))  # shorter than on a cluster

    def pause(self, endpoint: Observed, seconds: float) -> None:
        self._portal.start_task_soon(self._coordinator.pause, endpoint, seconds)

    def release(self) -> None:
        self._portal.call(self._coordinator.release, self._shard)
        self.released.set()


class Cluster:
    """Cluster whose shards run in threads."""

    def __init__(self, folder: Path, coordinator: Coordinator, *, shards: int, most: int) -> None:
        self.lessors: list[LocalLessor] = []
        self._folder = folder
        self._coordinator = coordinator
        self._shards = shards
        self._most = most

    @contextmanager
    def running(self, site: BatchSite, backend: Any) -> Iterator[list[Future[BatchSummary]]]:
        """Run all shards. Leaving the block waits until they have ended."""
        prompts = [f"prompt {number}" for number in range(PROMPTS)]
        with start_blocking_portal() as portal, ThreadPoolExecutor() as threads:
            self.stop = partial(portal.call, self._coordinator.stop)
            lessors = [
                LocalLessor(portal, self._coordinator, shard) for shard in range(self._shards)
            ]
            self.lessors = lessors
            try:
                yield [
                    threads.submit(self._run, lessor, site.url, prompts, shard, backend)
                    for shard, lessor in enumerate(lessors)
                ]
            except BaseException:
                self.stop()
                raise
            finally:
                threads.shutdown()
                for lessor in lessors:
                    assert lessor.released.wait(BOUND)

    def _run(
        self, lessor: LocalLessor, url: str, prompts: list[str], shard: int, backend: Any
    ) -> BatchSummary:
        make_client = partial(Client, url, trust_env=False)
        with LeaseKeeper(lessor, most=self._most, has_rate=False) as keeper:
            return run_shard(
                partial(keeper.client_of, make_client),
                prompts,
                self._folder,
                shard=shard,
                of=self._shards,
                limiter=keeper.limiter,
                on_progress=keeper.set_summary,
                stop=keeper.is_stopped,
                grace=0.0,
                backend=backend,
            )

    def wait_for_renewals(self, more: int = 5) -> None:
        """Wait until each shard has renewed its lease that many times."""
        wanted = [lessor.renewals + more for lessor in self.lessors]
        wait_until(
            lambda: all(one.renewals >= n for one, n in zip(self.lessors, wanted, strict=True))
        )


def wait_until(condition: Callable[[], bool]) -> None:
    tick, ends = threading.Event(), time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < ends
        tick.wait(0.005)


@backends
def test_a_limit_applies_to_all_shards_together(tmp_path: Path, backend: str) -> None:
    cluster = Cluster(tmp_path, Coordinator(5, None, most=4), shards=2, most=4)
    with batch_site_in_thread(lambda _: Hang()) as site, cluster.running(site, backend) as shards:
        site.wait_for(5)
        cluster.wait_for_renewals()
        assert len(site.asked) == 5
        cluster.stop()
        summaries = [shard.result(BOUND) for shard in shards]
    assert not any(summary.complete for summary in summaries)


@pytest.mark.slow
@backends
def test_a_pause_applies_to_all_shards(tmp_path: Path, backend: str) -> None:
    pause = 1.0
    refused = threading.Event()
    times: dict[str, float] = {}

    def respond(request: Request) -> Script:
        times[request.prompt] = time.monotonic()
        if len(site.asked) == 20:
            refused.set()
            return Refuse(429, "slow down", retry_after=pause)
        return Pause(0.01), Say("yes")

    cluster = Cluster(tmp_path, Coordinator(None, None, most=2), shards=2, most=2)
    with batch_site_in_thread(respond) as site, cluster.running(site, backend) as shards:
        summaries = [shard.result(BOUND) for shard in shards]
    assert refused.is_set()
    assert sum(summary.answered for summary in summaries) == PROMPTS
    assert all(summary.answered > 10 for summary in summaries), "both shards took part"
    ordered = sorted(times.values())
    gap = max(later - sooner for sooner, later in pairwise(ordered))
    assert gap > pause * 0.7, "one shard continued"


@pytest.mark.slow
@backends
def test_nothing_starts_while_the_coordinator_is_unreachable(tmp_path: Path, backend: str) -> None:
    times: list[float] = []

    def respond(_: Request) -> Script:
        times.append(time.monotonic())
        return Pause(0.05), Say("yes")

    cluster = Cluster(tmp_path, Coordinator(None, None, most=2), shards=1, most=2)
    with batch_site_in_thread(respond) as site, cluster.running(site, backend) as (shard,):
        site.wait_for(4)
        cluster.lessors[0].unanswered = 1
        summary = shard.result(BOUND)
    assert summary.all_answered
    assert max(later - sooner for sooner, later in pairwise(times)) > RENEW_EVERY * 0.7


@backends
def test_the_end_of_the_coordinator_stops_the_shard(tmp_path: Path, backend: str) -> None:
    cluster = Cluster(tmp_path, Coordinator(None, None, most=2), shards=1, most=2)
    with batch_site_in_thread(lambda _: Hang()) as site:
        with cluster.running(site, backend) as (shard,):
            site.wait_for(2)
            cluster.lessors[0].fails = True
            with pytest.raises(UnreachableError):
                shard.result(BOUND)


def test_an_ended_shard_returns_its_lease(tmp_path: Path) -> None:
    coordinator = Coordinator(2, None, most=2)
    cluster = Cluster(tmp_path, coordinator, shards=1, most=2)
    with batch_site_in_thread() as site, cluster.running(site, "asyncio") as (shard,):
        assert shard.result(BOUND).all_answered
        assert cluster.lessors[0].released.wait(BOUND)
    with start_blocking_portal() as portal:
        assert portal.call(coordinator.progress) == {}
        report = Report(Demand(0, 2, 0), LeasedLimits(0, None))
        assert portal.call(coordinator.renew, 1, report).limits.at_once == 2


class Alone(LocalLessor):
    """Connection to no coordinator. Each renewal gets the same lease."""

    def __init__(self, lease: Any) -> None:
        self.released = threading.Event()
        self._lease = lease

    def renew(self, report: Report) -> Lease | None:
        lease: Lease | None = self._lease
        return lease

    def release(self) -> None:
        self.released.set()


def test_a_lease_is_returned_if_the_loop_stops_during_a_renewal() -> None:
    """A stopped asyncio loop accepts calls, and does not run them."""

    async def start() -> None:
        keeper.client_of(partial(Client, "http://site.test"))

    lessor = Alone(None)
    loop = asyncio.new_event_loop()
    try:
        with LeaseKeeper(lessor, most=2, has_rate=False) as keeper:
            loop.run_until_complete(start())
        assert lessor.released.wait(BOUND)
    finally:
        loop.close()


@backends
def test_a_failure_in_the_loop_leaves_the_block(backend: str) -> None:
    async def main() -> None:
        async with keeper.client_of(partial(Client, "http://site.test")):
            with anyio.fail_after(BOUND):
                while not keeper.is_stopped():
                    await checkpoint()

    lessor = Alone("not a lease")
    with (
        pytest.raises(AttributeError, match="limits"),
        LeaseKeeper(lessor, most=2, has_rate=False) as keeper,
    ):
        anyio.run(main, backend=backend)
    assert lessor.released.wait(BOUND)


async def test_concurrent_refusals_are_reported_once() -> None:
    told: list[float] = []

    class Telling(LocalLessor):
        def __init__(self) -> None:
            pass

        def pause(self, endpoint: Observed, seconds: float) -> None:
            told.append(seconds)

    keeper = LeaseKeeper(Telling(), most=2, has_rate=False)
    for seconds in (5.0, 5.1, 1.0, 50.0):
        keeper._report_pause(Observed("site.test", 80), seconds)
    assert told == [5.0, 50.0]
