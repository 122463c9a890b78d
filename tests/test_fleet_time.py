"""A fleet under load, in virtual time: endpoints that fail, recover, refuse and are slow."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest
from loops import VIRTUAL_LOOPS

from gprochat_anyio import (
    Fleet,
    GPROChatError,
    Limiter,
    RateLimitError,
    ReplyInterruptedError,
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
    Drop,
    Hang,
    Pause,
    Refuse,
    Reply,
    Request,
    Say,
    Script,
    ScriptedSite,
    scripted_site,
)

pytestmark = pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)

DOWN = [Pause(0.05), Refuse(503, "down")]


@asynccontextmanager
async def fleet_of(
    *replies: Reply | Sequence[Reply],
    retry: Retry | None = None,
    timeouts: Timeouts | None = None,
    client: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[Any, list[ScriptedSite]]]:
    """A site of its own for each reply, or each list of replies, and a fleet of all."""
    with anyio.fail_after(100_000):
        async with AsyncExitStack() as stack:
            sites: list[ScriptedSite] = []
            for reply in replies:
                several: Any = reply if isinstance(reply, tuple) else (reply,)
                sites.append(await stack.enter_async_context(scripted_site(*several)))
            clients = [s.client(retry=retry, timeouts=timeouts, **client or {}) for s in sites]
            fleet = await stack.enter_async_context(Fleet(clients, **settings))
            yield fleet, sites


class Machine:
    """An endpoint that answers within some seconds, and can go down. It measures its load."""

    def __init__(self, seconds: float, *, fails_from: float | None = None) -> None:
        self.seconds = seconds
        self.fails_from = fails_from
        self.asked = self.failed = self.running = 0
        self.area = self.since = 0.0

    def __call__(self, request: Request) -> Script:
        self.asked += 1
        if self.fails_from is not None and request.time >= self.fails_from:
            self.failed += 1
            return DOWN
        self._count(1)
        return Say(request.prompt), Pause(self.seconds), self.done

    async def done(self) -> None:
        self._count(-1)

    def _count(self, more: int) -> None:
        now = anyio.current_time()
        self.area += self.running * (now - self.since)
        self.since, self.running = now, self.running + more


class TestAcceptance:
    async def test_five_of_which_three_fail_and_one_is_slow(self) -> None:
        now = anyio.current_time()
        machines = [
            Machine(0.1, fails_from=now),
            Machine(0.1, fails_from=now),
            Machine(0.1, fails_from=now + 3),
            Machine(0.4),
            Machine(0.1),
        ]
        async with fleet_of(*machines) as (fleet, _):
            outcomes = await gather(fleet, map(str, range(5000)), max_at_once=32)
            assert [o.unwrap().text for o in outcomes] == list(map(str, range(5000)))
        total = sum(machine.asked for machine in machines)
        assert sum(machine.failed for machine in machines) <= 0.02 * total
        loads = [machine.area for machine in machines[3:]]
        assert max(loads) <= 1.2 * min(loads)

    async def test_requests_are_even_over_like_endpoints(self) -> None:
        machines = [Machine(0.1) for _ in range(3)]
        async with fleet_of(*machines) as (fleet, _):
            await gather(fleet, map(str, range(1500)), max_at_once=24)
        asked = [machine.asked for machine in machines]
        assert max(asked) <= 1.2 * min(asked)

    @pytest.mark.parametrize("at_once", [1, 16, 64])
    async def test_all_are_down(self, at_once: int) -> None:
        async with fleet_of(*[DOWN] * 5) as (fleet, sites):
            outcomes = await gather(fleet, map(str, range(200)), max_at_once=at_once)
            assert all(isinstance(outcome.error, SiteError) for outcome in outcomes)
            assert sum(len(site.requests) for site in sites) <= 1.2 * 200

    async def test_all_go_down(self) -> None:
        machines = [Machine(0.1, fails_from=anyio.current_time() + 1) for _ in range(5)]
        async with fleet_of(*machines) as (fleet, _):
            outcomes = await gather(fleet, map(str, range(400)), max_at_once=16)
            lost = sum(outcome.error is not None for outcome in outcomes)
        assert lost > 200
        assert sum(machine.failed for machine in machines) <= 1.2 * lost

    @pytest.mark.parametrize("fails", [DOWN, [Pause(5), Refuse(503, "down")], Drop(), Hang()])
    @pytest.mark.parametrize("prompts", [64, 256])
    async def test_none_is_lost_with_two_of_five_down(self, fails: Reply, prompts: int) -> None:
        works = [Pause(0.3), Say("here")]
        async with fleet_of(fails, works, fails, works, works) as (fleet, _):
            outcomes = await gather(fleet, map(str, range(prompts)), max_at_once=prompts)
            assert {outcome.unwrap().text for outcome in outcomes} == {"here"}


class TestEjection:
    async def test_after_failures_in_a_row_and_twice_as_long_each_time(self) -> None:
        replies: list[Reply] = [Refuse(500, "no")] * 20
        async with fleet_of(tuple(replies), "here", eject_after=2, eject_for=10) as (fleet, sites):
            began = anyio.current_time()
            while len(sites[0].requests) < 8:
                await fleet.ask("hi")
                await anyio.sleep(0.5)
            times = [request.time - began for request in sites[0].requests]
            gaps = [b - a for a, b in itertools.pairwise(times[1:])]
            for gap, least in zip(gaps, [10, 20, 40, 80, 100, 100], strict=True):
                assert least <= gap <= least + 10
            state = fleet.states[0]
            assert (state.state, state.client) == ("ejected", fleet.clients[0])
            assert isinstance(state.error, SiteError)
            assert state.until == pytest.approx(sites[0].requests[-1].time + 100)
            assert fleet.states[1].state == "open"
            assert fleet.states[1].until is fleet.states[1].error is None

    async def test_a_rejected_key_at_once(self) -> None:
        async with fleet_of(Refuse(401, "key"), "here", eject_after=9) as (fleet, sites):
            for _ in range(20):
                await fleet.ask("hi")
            assert len(sites[0].requests) == 1
            assert fleet.states[0].state == "ejected"

    async def test_one_probe_at_a_time_and_recovery(self) -> None:
        probed = (Refuse(500, "no"), [Pause(5), Say("back")], "back")
        async with fleet_of(probed, "here", eject_after=1, eject_for=10) as (fleet, sites):
            while not sites[0].requests:
                await fleet.ask("hi")
            await anyio.sleep(10)
            async with anyio.create_task_group() as tg:
                for _ in range(40):
                    tg.start_soon(fleet.ask, "hi")
                await anyio.sleep(1)
                assert len(sites[0].requests) == 2
                assert fleet.states[0].state == "ejected"
                assert fleet.states[0].open_replies == 1
            assert fleet.states[0].state == "open"
            assert fleet.states[0].error is not None

    async def test_a_cancelled_probe_lets_another_try(self) -> None:
        probed = (Refuse(500, "no"), Hang(), "back")
        async with fleet_of(probed, "here", eject_after=1, eject_for=10) as (fleet, sites):
            while len(sites[0].requests) < 3:
                with anyio.move_on_after(1):
                    await fleet.ask("hi")
                await anyio.sleep(1)
            assert fleet.states[0].state == "open"

    async def test_interruptions_count(self) -> None:
        async with fleet_of([Say("x"), Drop()], "here", eject_after=2) as (fleet, sites):
            failed = 0
            for _ in range(30):
                try:
                    await fleet.ask("hi")
                except ReplyInterruptedError:
                    failed += 1
            assert failed == len(sites[0].requests) == 2

    async def test_all_are_ejected(self) -> None:
        replies = (Refuse(500, "no"), "back")
        async with fleet_of(replies, replies, eject_after=1) as (fleet, _):
            with pytest.raises(SiteError):
                await fleet.ask("hi")
            assert [state.state for state in fleet.states] == ["ejected"] * 2
            assert (await fleet.ask("hi")).text == "back"
            assert sorted(state.state for state in fleet.states) == ["ejected", "open"]

    @pytest.mark.parametrize("status", [400, 413, 422])
    async def test_errors_of_the_prompt_do_not_count(self, status: int) -> None:
        async with fleet_of(*[Refuse(status, "no")] * 2, eject_after=1) as (fleet, sites):
            for number in range(5):
                with pytest.raises(SiteError) as caught:
                    await fleet.ask("hi")
                assert not hasattr(caught.value, "__notes__")
                assert sum(len(site.requests) for site in sites) == number + 1
            assert [state.state for state in fleet.states] == ["open"] * 2

    async def test_an_older_request_does_not_end_an_ejection(self) -> None:
        replies = ([Pause(5), Say("old")], Refuse(500, "no"))
        async with fleet_of(replies, Hang(), eject_after=1, eject_for=60) as (fleet, sites):
            async with anyio.create_task_group() as tg:
                while len(sites[0].requests) < 2:
                    tg.start_soon(fleet.ask, "hi")
                    await anyio.sleep(0.1)
                await anyio.sleep(10)
                assert sites[0].requests[0].outcome == "complete"
                assert fleet.states[0].state == "ejected"
                tg.cancel_scope.cancel()

    @pytest.mark.parametrize("attempts", [1, 2, 4])
    async def test_as_many_rounds_as_attempts(self, attempts: int) -> None:
        retry = Retry(attempts=attempts)
        async with fleet_of(DOWN, DOWN, retry=retry, eject_after=99) as (fleet, sites):
            with pytest.raises(SiteError):
                await fleet.ask("hi")
            assert [len(site.requests) for site in sites] == [attempts] * 2

    async def test_silence_in_the_middle_of_a_reply_does_not_count(self) -> None:
        silent = [Say("a"), Hang()]
        async with fleet_of(silent, silent, eject_after=1) as (fleet, _):
            with pytest.raises(RequestTimeoutError):
                await fleet.ask("hi", timeouts=Timeouts(idle=5))
            assert [state.state for state in fleet.states] == ["open"] * 2
            assert [state.open_replies for state in fleet.states] == [0, 0]

    async def test_an_older_reply_does_not_make_up_for_a_failure(self) -> None:
        slow = [Say("a"), Pause(10), Say("b")]
        down: tuple[Reply, ...] = (slow, slow, *[Refuse(500, "no")] * 9)
        async with fleet_of(down, eject_after=3) as (fleet, _sites):
            async with anyio.create_task_group() as tg:
                for _ in range(2):
                    tg.start_soon(fleet.ask, "hi")
                await anyio.sleep(1)
                for _ in range(2):
                    with pytest.raises(SiteError):
                        await fleet.ask("hi")
            with pytest.raises(SiteError):
                await fleet.ask("hi")
            assert fleet.states[0].state == "ejected"


class TestPauses:
    async def test_a_rate_limit_pauses_and_does_not_eject(self) -> None:
        limited = (Refuse(429, "slow", 20), "back")
        async with fleet_of(limited, "here", eject_after=1) as (fleet, sites):
            while not sites[0].requests:
                await fleet.ask("hi")
            began = anyio.current_time()
            state = fleet.states[0]
            assert (state.state, state.until) == ("paused", pytest.approx(began + 20))
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
            with pytest.raises(RateLimitError, match="all endpoints of the Fleet") as caught:
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

    async def test_without_a_retry_after_for_the_backoff(self) -> None:
        limited = (Refuse(429, "slow"), "back")
        retry = Retry(backoff=8)
        async with fleet_of(limited, "here", retry=retry, eject_after=1) as (fleet, sites):
            while not sites[0].requests:
                await fleet.ask("hi")
            state = fleet.states[0]
            assert state.state == "paused"
            assert 4 <= state.until - anyio.current_time() <= 8
            await anyio.sleep(8)
            assert fleet.states[0].state == "open"

    async def test_a_prompt_that_waits_for_a_limiter_waits_on_no_clock(self) -> None:
        limited = (Refuse(429, "slow", 20), "back")
        async with fleet_of(limited, limited) as (fleet, _):
            async with anyio.create_task_group() as tg:
                tg.start_soon(fleet.ask, "hi")
                await anyio.sleep(1)
                (outcome,) = await gather(fleet, ["hi"], timeouts=Timeouts(total=5))
                assert outcome.unwrap().text == "back"

    @pytest.mark.parametrize("accepts", [2, 5])
    async def test_a_fan_out_finds_what_the_endpoints_accept(self, accepts: int) -> None:
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

    async def test_begins_where_the_request_says(self) -> None:
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

    async def test_bounds_the_wait_for_a_token(self) -> None:
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
            assert (timing.attempts, timing.total) == (2, pytest.approx(9))
            assert sorted(r.time for s in sites for r in s.requests) == pytest.approx(
                [anyio.current_time() - 9, anyio.current_time() - 7]
            )

    async def test_without_a_token(self) -> None:
        slow = [Pause(9), Say("a")]
        async with fleet_of(slow, slow, hedge_after=2.0) as (fleet, sites):
            fleet._opener._budget.tokens = 0
            assert (await fleet.ask("hi")).timing.attempts == 1
            assert sum(len(site.requests) for site in sites) == 1

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
            assert fleet._opener._budget.tokens == 15  # no hedge has taken one
            assert [outcome.unwrap().timing.attempts for outcome in outcomes] == [1] * 5

    async def test_cancelled_it_closes_both(self) -> None:
        async with fleet_of(Hang(), Hang(), hedge_after=2.0) as (fleet, sites):
            with anyio.move_on_after(5):
                await fleet.ask("hi")
            for site in sites:
                await site.until(lambda site=site: not site.open_connections)  # type: ignore[misc]
            assert [state.open_replies for state in fleet.states] == [0, 0]
