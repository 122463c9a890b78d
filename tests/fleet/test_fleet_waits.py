"""Pauses of endpoints, and the deadline `total`, in virtual time."""

from __future__ import annotations

import anyio
import pytest
from support.fleets import fleet_in_memory as fleet_of
from support.loops import virtual

from gprochat_anyio import (
    GPROChatError,
    Limiter,
    RateLimitError,
    RequestTimeoutError,
    Retry,
    SiteError,
    Timeouts,
    fan_out,
    gather,
)
from gprochat_anyio._request.chat_client import opener_of
from gprochat_anyio._request.opener import PreparedRequest
from gprochat_anyio._request.sinks import Collector
from gprochat_anyio.testing import (
    Hang,
    Pause,
    Refuse,
    Reply,
    Request,
    Say,
    Script,
)

pytestmark = virtual


class TestPauses:
    async def test_a_rate_limit_pauses_and_does_not_eject(self) -> None:
        limited = (Refuse(429, "slow", 20), "back")
        async with fleet_of(limited, "here", eject_after=1) as (fleet, sites):
            while not sites[0].requests:
                await fleet.ask("hi")
            began = anyio.current_time()
            state = fleet.states[0]
            assert state.state == "paused"
            assert state.until == pytest.approx(began + 20)
            while len(sites[0].requests) < 2:
                assert (await fleet.ask("hi")).text
                await anyio.sleep(1)
            assert sites[0].requests[1].time - began >= 20
            assert fleet.states[0].state == "open"

    async def test_all_are_paused(self) -> None:
        limited = (Refuse(429, "slow", 20), "back")
        async with fleet_of(limited, limited) as (fleet, _):
            assert (await fleet.ask("hi")).timing.total == pytest.approx(20, abs=1)

    @pytest.mark.parametrize("hedge_after", [None, 1.0])
    async def test_all_are_paused_for_too_long(self, hedge_after: float | None) -> None:
        limited = Refuse(429, "slow", 50)
        async with fleet_of(limited, limited, hedge_after=hedge_after) as (fleet, sites):
            with pytest.raises(RateLimitError) as caught:
                await fleet.ask("hi", timeouts=Timeouts(total=10))
            assert caught.value.__notes__
            with pytest.raises(RateLimitError, match="all working endpoints") as caught:
                await fleet.ask("hi", timeouts=Timeouts(total=10))
            assert caught.value.retry_after == pytest.approx(50, abs=1)
            assert sum(len(site.requests) for site in sites) == 2

    async def test_paused_and_ejected(self) -> None:
        replies = (Refuse(503, "wait", 5), "back")
        async with fleet_of(replies, replies, eject_after=1) as (fleet, sites):
            with pytest.raises(SiteError):
                await fleet.ask("hi", timeouts=Timeouts(total=1))
            assert [state.state for state in fleet.states] == ["ejected"] * 2
            times = [request.time for site in sites for request in site.requests]
            await fleet.ask("hi")
            assert max(r.time for s in sites for r in s.requests) - max(times) >= 4.9

    async def test_the_backoff_without_a_retry_after(self) -> None:
        limited = (Refuse(429, "slow"), "back")
        retry = Retry(backoff=8)
        async with fleet_of(limited, "here", retry=retry, eject_after=1) as (fleet, sites):
            while not sites[0].requests:
                await fleet.ask("hi")
            state = fleet.states[0]
            assert state.state == "paused"
            assert state.until is not None
            assert 4 <= state.until - anyio.current_time() <= 8
            await anyio.sleep(8)
            assert fleet.states[0].state == "open"

    async def test_an_adaptive_limiter_backs_off_instead(self) -> None:
        async with fleet_of(Refuse(429, "slow"), retry=Retry(attempts=2)) as (fleet, _):
            (outcome,) = await gather(fleet, ["hi"], limiter=Limiter(adaptive=True))
            assert isinstance(outcome.error, RateLimitError)
            assert fleet.states[0].state == "open"

    async def test_no_deadline_runs_while_a_prompt_waits_for_a_limiter(self) -> None:
        limited = (Refuse(429, "slow", 20), "back")
        async with fleet_of(limited, limited) as (fleet, _):
            async with anyio.create_task_group() as tg:
                tg.start_soon(fleet.ask, "hi")
                await anyio.sleep(1)
                (outcome,) = await gather(fleet, ["hi"], timeouts=Timeouts(total=5))
                assert outcome.unwrap().text == "back"

    @pytest.mark.slow
    @pytest.mark.parametrize("accepts", [2, 5])
    async def test_a_fan_out_finds_the_endpoints_limits(self, accepts: int) -> None:
        running = [0, 0]

        def narrow(number: int) -> Reply:
            async def done() -> None:
                running[number] -= 1

            def reply(request: Request) -> Script:
                if running[number] >= accepts:
                    return Refuse(429, "slow down")
                running[number] += 1
                return Say(request.prompt), Pause(0.1), done

            return reply

        async with fleet_of(narrow(0), narrow(1)) as (fleet, sites):
            began = anyio.current_time()
            outcomes = await gather(fleet, map(str, range(500)), max_at_once=32)
            assert all(outcome.error is None for outcome in outcomes)
            assert anyio.current_time() - began <= 1.5 * 500 * 0.1 / (2 * accepts)
            assert sum(len(site.requests) for site in sites) <= 1.15 * 500


class TestTotal:
    async def test_spans_all_endpoints(self) -> None:
        slow = [Pause(4), Refuse(500, "no")]
        async with fleet_of(slow, slow, slow) as (fleet, _):
            began = anyio.current_time()
            with pytest.raises(RequestTimeoutError) as caught:
                await fleet.ask("hi", timeouts=Timeouts(total=10))
            assert anyio.current_time() - began == pytest.approx(10)
            assert caught.value.phase == "total"
            assert len(caught.value.__notes__) == 2

    async def test_begins_at_the_given_time(self) -> None:
        async with fleet_of(Hang(), Hang()) as (fleet, _):
            began = anyio.current_time()
            await anyio.sleep(4)
            request = PreparedRequest.of("hi", Timeouts(total=10))
            assert isinstance(request, PreparedRequest)
            with pytest.raises(RequestTimeoutError):
                await opener_of(fleet).open(request._replace(began=began), Collector())
            assert anyio.current_time() - began == pytest.approx(10)

    @pytest.mark.parametrize("hedge_after", [None, 1.0])
    async def test_begins_at_the_first_start(self, hedge_after: float | None) -> None:
        slow = [Pause(4), Refuse(500, "no")]
        async with fleet_of(slow, slow, slow, hedge_after=hedge_after) as (fleet, sites):
            limiter = Limiter(max_per_second=0.05)
            began = anyio.current_time()
            outcomes = await gather(fleet, ["a", "b"], limiter=limiter, timeouts=Timeouts(total=6))
            assert all(isinstance(outcome.error, GPROChatError) for outcome in outcomes)
            assert anyio.current_time() - began <= 70
            assert sites

    async def test_limits_the_wait_for_a_token(self) -> None:
        down = Refuse(500, "no")
        async with fleet_of(Hang(), down, eject_after=1000) as (fleet, _):
            fleet._opener._budget.tokens = 0
            began = anyio.current_time()
            async with anyio.create_task_group() as tg:
                async with fan_out(
                    fleet, ["x"] * 20, max_at_once=20, timeouts=Timeouts(total=8)
                ) as events:
                    async for _ in events:
                        pass
            assert anyio.current_time() - began == pytest.approx(8)
            tg.cancel_scope.cancel()
