"""Hedges of a fleet, in virtual time."""

from __future__ import annotations

import logging
from collections import Counter

import anyio
import pytest
from support.fleets import fleet_in_memory as fleet_of
from support.loops import virtual

from gprochat_anyio import (
    Limiter,
    RequestTimeoutError,
    SiteError,
    Timeouts,
    gather,
)
from gprochat_anyio.testing import (
    Hang,
    Pause,
    Refuse,
    Say,
)

pytestmark = virtual


class TestHedging:
    async def test_the_first_text_wins_and_the_other_is_closed(self) -> None:
        fast = [Say("fa"), Pause(1), Say("st")]
        async with fleet_of([Pause(60), Say("slow")], fast, hedge_after=2.0) as (fleet, sites):
            chunks = fleet.stream("hi")
            while not sites[0].requests:
                chunks = fleet.stream("hi")
                async with chunks:
                    assert chunks.client is fleet.clients[1]
                    assert [state.open_replies for state in fleet.states] == [0, 1]
                    assert not sites[0].open_connections
                    assert await chunks.read() == "fast"
            assert chunks.timing.attempts == 2
            assert chunks.timing.total == pytest.approx(3)
            assert sites[0].requests[0].outcome == "left"
            assert fleet.states[0].error is None

    @pytest.mark.slow
    async def test_both_at_the_same_moment(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "gprochat_anyio")
        replies = [[Pause(seconds), Say("a"), Pause(1), Say("b")] for seconds in (4, 2)]
        async with fleet_of(*replies, *replies, hedge_after=2.0) as (fleet, sites):
            for _ in range(50):
                assert (await fleet.ask("hi")).text == "ab"
            assert sum(request.outcome == "left" for s in sites for request in s.requests) > 5
        events = Counter(record.__dict__["gprochat_event"] for record in caplog.records)
        assert events["request.done"] == 50
        lost = events["request.left"] + events["request.cancelled"]
        assert lost == events["request.started"] - 50 > 5

    async def test_not_for_a_fast_endpoint(self) -> None:
        async with fleet_of([Pause(1), Say("a")], [Pause(1), Say("a")], hedge_after=2.0) as (
            fleet,
            sites,
        ):
            for _ in range(10):
                assert (await fleet.ask("hi")).timing.attempts == 1
            assert sum(len(site.requests) for site in sites) == 10

    async def test_attempts_and_time(self) -> None:
        async with fleet_of([Pause(9), Say("a")], [Pause(9), Say("a")], hedge_after=2.0) as (
            fleet,
            sites,
        ):
            timing = (await fleet.ask("hi")).timing
            assert timing.attempts == 2
            assert timing.total == pytest.approx(9)
            assert sorted(r.time for s in sites for r in s.requests) == pytest.approx(
                [anyio.current_time() - 9, anyio.current_time() - 7]
            )

    async def test_without_a_token(self) -> None:
        slow = [Pause(9), Say("a")]
        async with fleet_of(slow, slow, hedge_after=2.0) as (fleet, sites):
            fleet._opener._budget.tokens = 0
            assert (await fleet.ask("hi")).timing.attempts == 1
            assert sum(len(site.requests) for site in sites) == 1

    async def test_all_are_silent_until_the_budget_is_empty(self) -> None:
        async with fleet_of(Hang(), Hang(), hedge_after=2.0) as (fleet, sites):

            async def ask() -> None:
                with pytest.raises(RequestTimeoutError):
                    await fleet.ask("hi", timeouts=Timeouts(total=9))

            async with anyio.create_task_group() as tg:
                for _ in range(100):
                    tg.start_soon(ask)
            assert sum(len(site.requests) for site in sites) == 100 + 10

    async def test_without_another_endpoint(self) -> None:
        async with fleet_of([Pause(9), Say("a")], hedge_after=2.0) as (fleet, _sites):
            assert (await fleet.ask("hi")).timing.attempts == 1

    @pytest.mark.parametrize("status", [400, 500])
    async def test_both_fail(self, status: int) -> None:
        fails = [Pause(5), Refuse(status, "no")]
        async with fleet_of(fails, fails, hedge_after=2.0) as (fleet, _sites):
            with pytest.raises(SiteError) as caught:
                await fleet.ask("hi")
            notes = getattr(caught.value, "__notes__", [])
            assert len(notes) == (1 if status == 500 else 0)

    async def test_the_hedge_fails_first(self) -> None:
        for _ in range(6):
            async with fleet_of(
                [Pause(5), Say("a")], [Pause(1), Refuse(500, "no")], hedge_after=2.0
            ) as (fleet, _):
                assert (await fleet.ask("hi")).text == "a"

    async def test_waits_for_the_limiter_first(self) -> None:
        async with fleet_of("a", "a", hedge_after=2.0) as (fleet, _sites):
            limiter = Limiter(max_per_second=0.1)
            outcomes = await gather(fleet, ["x"] * 5, limiter=limiter)
            assert fleet._opener._budget.tokens == 15  # the hedge has not taken one
            assert [outcome.unwrap().timing.attempts for outcome in outcomes] == [1] * 5

    async def test_cancellation_closes_both(self) -> None:
        async with fleet_of(Hang(), Hang(), hedge_after=2.0) as (fleet, sites):
            with anyio.move_on_after(5):
                await fleet.ask("hi")
            for site in sites:
                await site.until(lambda site=site: not site.open_connections)  # type: ignore[misc]
            assert [state.open_replies for state in fleet.states] == [0, 0]
