"""The coordinator: leases, pauses, stops and progress of all shards."""

from __future__ import annotations

from functools import partial

import anyio
import pytest
from support.loops import virtual

from gprochat_anyio._request.leased_limiter import Demand
from gprochat_anyio._request.request_events import Observed
from gprochat_anyio.batch._coordinator import WATCH_FOR, Coordinator, Report
from gprochat_anyio.batch._lease_book import LeasedLimits
from gprochat_anyio.batch._summary import Tally

pytestmark = virtual

SITE = Observed("site.test", 80)
REPORT = Report(Demand(0, 0, 0))


def coordinator(**settings: bool) -> Coordinator:
    return Coordinator(8, None, most=16, clock=anyio.current_time, **settings)


async def test_a_watch_ends_with_a_change_or_after_its_timeout() -> None:
    one = coordinator()
    began = anyio.current_time()
    await one.watch(0)
    assert anyio.current_time() - began == pytest.approx(WATCH_FOR, abs=0.1)
    for change in (partial(one.pause, SITE, 5.0), one.stop):
        version = (await one.renew(0, REPORT)).version
        began = anyio.current_time()
        async with anyio.create_task_group() as tg:
            for _ in range(3):
                tg.start_soon(one.watch, version)
            await anyio.sleep(1)
            await change()
        assert anyio.current_time() - began == pytest.approx(1, abs=0.1)
        await one.watch(version)
    assert anyio.current_time() - began == pytest.approx(1, abs=0.1), "it has changed already"


async def test_each_lease_has_the_pauses_that_have_not_ended() -> None:
    one = coordinator()
    await one.pause(SITE, 5.0)
    assert (await one.renew(0, REPORT)).pauses == {SITE: pytest.approx(5.0, abs=0.1)}
    await anyio.sleep(2)
    assert (await one.renew(1, REPORT)).pauses == {SITE: pytest.approx(3.0, abs=0.1)}
    await anyio.sleep(3)
    assert (await one.renew(0, REPORT)).pauses == {}


async def test_concurrent_refusals_wake_the_shards_once() -> None:
    one = coordinator()
    await one.pause(SITE, 5.0)
    version = (await one.renew(0, REPORT)).version
    await one.pause(SITE, 5.2)
    await one.pause(SITE, 1.0)
    lease = await one.renew(0, REPORT)
    assert lease.version == version
    assert lease.pauses == {SITE: pytest.approx(5.0, abs=0.1)}
    await one.pause(SITE, 50.0)
    assert (await one.renew(0, REPORT)).version > version


async def test_a_stop_lasts() -> None:
    one = coordinator()
    assert not await one.is_stopped()
    assert not (await one.renew(0, REPORT)).stop
    await one.stop()
    version = (await one.renew(0, REPORT)).version
    await one.stop()
    lease = await one.renew(0, REPORT)
    assert (lease.stop, lease.version) == (True, version)
    assert await one.is_stopped()


async def test_progress_has_the_running_shards() -> None:
    one = coordinator()
    summary = Tally().summary(in_flight=3, elapsed=1.0, paused=0.0)
    await one.renew(0, REPORT)
    await one.renew(1, REPORT._replace(summary=summary))
    assert await one.progress() == {1: summary}
    await one.release(1)
    assert await one.progress() == {}


async def test_a_released_lease_goes_to_the_others() -> None:
    one = coordinator()
    assert (await one.renew(0, REPORT)).limits.at_once == 8
    busy = Report(Demand(0, 16, 0), LeasedLimits(0, None))
    assert (await one.renew(1, busy)).limits.at_once == 0
    await one.release(0)
    assert (await one.renew(1, busy)).limits.at_once == 8


async def test_a_restarted_coordinator_learns_before_it_leases() -> None:
    one = coordinator(is_second=True)
    assert (await one.renew(0, REPORT)).limits.at_once == 0
    held = LeasedLimits(6, None)
    assert (await one.renew(1, REPORT._replace(held=held))).limits == held
