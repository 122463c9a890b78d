"""A fleet under load, in virtual time: endpoints that fail, recover, refuse and are slow."""

from __future__ import annotations

import itertools

import anyio
import pytest
from support.fleets import fleet_in_memory as fleet_of
from support.loops import virtual

from gprochat_anyio import (
    ReplyInterruptedError,
    RequestTimeoutError,
    Retry,
    SiteError,
    Timeouts,
    gather,
)
from gprochat_anyio.testing import (
    Drop,
    Hang,
    Pause,
    Refuse,
    Reply,
    Request,
    Say,
    Script,
)

pytestmark = virtual

DOWN = [Pause(0.05), Refuse(503, "down")]


class Machine:
    """An endpoint with a given latency that can fail. It measures its load."""

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
    @pytest.mark.slow
    async def test_five_of_which_three_fail_and_one_is_slow(self, *, full: bool) -> None:
        prompts = [str(number) for number in range(5000 if full else 2500)]
        now = anyio.current_time()
        machines = [
            Machine(0.1, fails_from=now),
            Machine(0.1, fails_from=now),
            Machine(0.1, fails_from=now + 3),
            Machine(0.4),
            Machine(0.1),
        ]
        async with fleet_of(*machines) as (fleet, _):
            outcomes = await gather(fleet, prompts, max_at_once=32)
            assert [o.unwrap().text for o in outcomes] == prompts
        total = sum(machine.asked for machine in machines)
        assert sum(machine.failed for machine in machines) <= 0.02 * total
        loads = [machine.area for machine in machines[3:]]
        assert max(loads) <= 1.2 * min(loads)

    @pytest.mark.slow
    async def test_requests_are_even_over_like_endpoints(self) -> None:
        machines = [Machine(0.1) for _ in range(3)]
        async with fleet_of(*machines) as (fleet, _):
            await gather(fleet, map(str, range(1500)), max_at_once=24)
        asked = [machine.asked for machine in machines]
        assert max(asked) <= 1.2 * min(asked)

    @pytest.mark.slow
    @pytest.mark.parametrize("at_once", [1, 16, 64])
    async def test_all_are_down(self, at_once: int) -> None:
        async with fleet_of(*[DOWN] * 5) as (fleet, sites):
            outcomes = await gather(fleet, map(str, range(200)), max_at_once=at_once)
            assert all(isinstance(outcome.error, SiteError) for outcome in outcomes)
            assert sum(len(site.requests) for site in sites) <= 1.2 * 200

    @pytest.mark.slow
    async def test_all_go_down(self) -> None:
        machines = [Machine(0.1, fails_from=anyio.current_time() + 1) for _ in range(5)]
        async with fleet_of(*machines) as (fleet, _):
            outcomes = await gather(fleet, map(str, range(400)), max_at_once=16)
            lost = sum(outcome.error is not None for outcome in outcomes)
        assert lost > 200
        assert sum(machine.failed for machine in machines) <= 1.2 * lost

    @pytest.mark.slow
    @pytest.mark.parametrize("fails", [DOWN, [Pause(5), Refuse(503, "down")], Drop(), Hang()])
    @pytest.mark.parametrize("prompts", [64, 256])
    async def test_no_prompt_fails_with_two_of_five_down(self, fails: Reply, prompts: int) -> None:
        works = [Pause(0.3), Say("here")]
        async with fleet_of(fails, works, fails, works, works) as (fleet, _):
            outcomes = await gather(fleet, map(str, range(prompts)), max_at_once=prompts)
            assert {outcome.unwrap().text for outcome in outcomes} == {"here"}


class TestEjection:
    @pytest.mark.slow
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
            assert fleet.states[1].until is None
            assert fleet.states[1].error is None

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

    async def test_an_older_reply_does_not_offset_a_failure(self) -> None:
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
