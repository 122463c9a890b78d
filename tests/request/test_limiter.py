"""Limiter: ordered, evenly spaced and limited starts, over clients, fan-outs and races."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import anyio
import anyio.to_thread
import pytest
from support.blocked import all_tasks_blocked
from support.limited_sites import (
    OPEN,
    STEADY,
    ask_all,
    lasting,
    numbers,
    once_refused,
    sites,
    starts,
)
from support.loops import virtual
from support.prompted import AtOnce, echo

from gprochat_anyio import Limiter, LimiterStatistics, SiteError, Timeouts, gather, race
from gprochat_anyio.testing import Hang, Pause, Refuse, scripted_site

LONG = Timeouts(first_chunk=None, idle=None, total=None)


@virtual
class TestAtOnce:
    @pytest.mark.parametrize("at_once", [1, 3])
    async def test_over_clients_fan_outs_and_tasks(self, at_once: int) -> None:
        asked = AtOnce(lasting(1))
        limiter = Limiter(max_at_once=at_once)
        async with sites(asked, asked, limiter=limiter) as (clients, found):
            began = anyio.current_time()
            async with anyio.create_task_group() as tasks:
                for client in clients:
                    tasks.start_soon(gather, client, numbers(4))
                    tasks.start_soon(ask_all, client, *numbers(5))
            assert len(starts(*found)) == 18
            assert asked.most == at_once
            assert anyio.current_time() - began == pytest.approx(18 / at_once)
            assert limiter.statistics().running == 0

    async def test_given_to_fan_outs_over_clients_without_one(self) -> None:
        asked = AtOnce(lasting(1))
        limiter = Limiter(max_at_once=3)
        async with sites(asked, asked) as (clients, _):
            async with anyio.create_task_group() as tasks:
                for client in clients:
                    tasks.start_soon(partial(gather, client, numbers(6), limiter=limiter))
            assert asked.most == 3

    @pytest.mark.parametrize("max_at_once", [None, 8])
    async def test_given_twice_counts_once(self, max_at_once: int | None) -> None:
        asked = AtOnce(lasting(1))
        limiter = Limiter(max_at_once=2, max_per_second=2)
        async with sites(asked, limiter=limiter) as ((client,), (site,)):
            await gather(client, numbers(6), limiter=limiter, max_at_once=max_at_once)
            assert asked.most == 2
            gaps = [b - a for (a, _), (b, _) in pairwise(starts(site))]
            assert gaps == pytest.approx([0.5] * 5)

    async def test_given_to_a_race_of_its_own_client_counts_once(self) -> None:
        limiter = Limiter(max_at_once=1)
        async with sites(OPEN, limiter=limiter) as ((client,), _):
            async with race(client, "hi", limiter=limiter) as chunks:
                assert await chunks.receive() == "text"
                assert limiter.statistics() == LimiterStatistics(1, 0, 0, 1, 0.0)

    async def test_two_given_limits_both_hold(self) -> None:
        asked = AtOnce(lasting(1))
        async with sites(asked, limiter=Limiter(max_at_once=4)) as ((client,), _):
            await gather(client, numbers(8), limiter=Limiter(max_at_once=2))
            assert asked.most == 2
            await gather(client, numbers(8), max_at_once=16)
            assert asked.most == 4

    async def test_two_limiters_in_different_places_do_not_wait_for_each_other(self) -> None:
        one, other = Limiter(max_at_once=1), Limiter(max_at_once=1)
        async with scripted_site(lasting(1)) as site:
            async with site.client(limiter=one) as a, site.client(limiter=other) as b:
                with anyio.fail_after(100):
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(partial(gather, a, numbers(10), limiter=other))
                        tasks.start_soon(partial(gather, b, numbers(10), limiter=one))
            assert len(site.requests) == 20

    async def test_a_stream_runs_until_its_end(self) -> None:
        limiter = Limiter(max_at_once=1)
        async with sites(OPEN, limiter=limiter) as ((client,), (site,)):
            async with anyio.create_task_group() as tasks:
                async with client.stream("hi") as chunks:
                    await chunks.receive()
                    tasks.start_soon(client.ask, "next")
                    await all_tasks_blocked()
                    assert limiter.statistics() == LimiterStatistics(1, 1, 0, 1, 0.0)
                    assert len(site.requests) == 1
            assert [prompt for _, prompt in starts(site)] == ["hi", "next"]

    async def test_without_limits(self) -> None:
        limiter = Limiter()
        asked = AtOnce(lasting(1))
        async with sites(asked, limiter=limiter) as ((client,), _):
            assert limiter.statistics() == LimiterStatistics(0, 0, 0, None, 0.0)
            await ask_all(client, *numbers(50))
            assert asked.most == 50
            assert limiter.statistics().limit is None
            await gather(client, numbers(40), limiter=limiter)
            assert asked.most == 50


@virtual
class TestPerSecond:
    async def test_over_clients_fan_outs_and_tasks_evenly(self) -> None:
        limiter = Limiter(max_per_second=4)
        async with sites(echo, echo, limiter=limiter) as (clients, found):
            async with anyio.create_task_group() as tasks:
                for client in clients:
                    tasks.start_soon(gather, client, numbers(5))
                    tasks.start_soon(ask_all, client, *numbers(5))
            times = [time for time, _ in starts(*found)]
            assert times == pytest.approx([number / 4 for number in range(20)])

    async def test_does_not_accumulate(self) -> None:
        async with sites(echo, limiter=Limiter(max_per_second=2)) as ((client,), (site,)):
            await client.ask("0")
            await anyio.sleep(10)
            await ask_all(client, "1", "2", "3")
            assert [time for time, _ in starts(site)] == pytest.approx([0, 10, 10.5, 11])

    async def test_retries_are_spaced(self) -> None:
        """The 18 attempts are spaced like other requests."""
        limiter = Limiter(max_per_second=5)
        async with sites(Refuse(503, "busy"), retry=STEADY) as ((client,), (site,)):
            outcomes = await gather(client, numbers(6), limiter=limiter)
            assert all(isinstance(outcome.error, SiteError) for outcome in outcomes)
            times = [time for time, _ in starts(site)]
            assert times == pytest.approx([number / 5 for number in range(18)])

    async def test_hedges_are_spaced(self) -> None:
        limiter = Limiter(max_per_second=2)
        async with sites(Hang(), timeouts=LONG) as ((client,), (site,)):
            with anyio.move_on_after(4):
                async with race([client] * 5, "hi", limiter=limiter):
                    pytest.fail("a request received text")
            assert [time for time, _ in starts(site)] == pytest.approx([0, 0.5, 1, 1.5, 2])
            assert limiter.statistics() == LimiterStatistics(0, 0, 0, None, 0.0)

    async def test_waiting_hedges_are_cancelled_with_the_others(self) -> None:
        limiter = Limiter(max_at_once=1)
        async with sites([Pause(3), *OPEN]) as ((client,), (site,)):
            async with race([client] * 5, "hi", hedge_after=1, limiter=limiter) as chunks:
                assert chunks.winner == 0
                assert limiter.statistics() == LimiterStatistics(1, 0, 0, 1, 0.0)
            assert len(site.requests) == 1
            assert limiter.statistics().running == 0

    async def test_a_pause_moves_the_timer_without_an_extra_start(self) -> None:
        """A request that arrives when another is due comes first, and starts instead of it."""
        answer = once_refused(Refuse(429, "", 2), "1")
        async with sites(answer, retry=STEADY) as ((client,), (site,)):
            await gather(client, numbers(4), max_per_second=2, adaptive=False)
            assert [time for time, _ in starts(site)] == [0, 0.5, 2.5, 3, 3.5]

    async def test_an_endpoint_does_not_overtake_another(self) -> None:
        """Even if the event loop is late, the request that has waited longer starts first."""
        limiter = Limiter(max_per_second=1)
        async with sites(echo, echo, limiter=limiter) as ((a, b), found):
            await a.ask("0")

            async def late() -> None:
                await anyio.sleep(1)  # the other client's timer is due at the same time
                await b.ask("late")

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(late)
                await all_tasks_blocked()
                tasks.start_soon(a.ask, "first")
            assert starts(*found) == [(0, "0"), (1, "first"), (2, "late")]


@virtual
class TestOrder:
    async def test_first_come_first_served(self) -> None:
        limiter = Limiter(max_at_once=1)
        async with sites(lasting(1), lasting(1), limiter=limiter) as ((a, b), found):
            async with anyio.create_task_group() as tasks:
                for number in range(6):
                    tasks.start_soon((a, b)[number % 2].ask, str(number))
                    await all_tasks_blocked()
            assert starts(*found) == [(number, str(number)) for number in range(6)]

    async def test_a_retry_keeps_its_place(self) -> None:
        limiter = Limiter(max_at_once=1)
        answer = once_refused(Refuse(503, "busy"))
        async with sites(answer, limiter=limiter, retry=STEADY) as ((client,), (site,)):
            await ask_all(client, *numbers(3))
            # its wait of zero seconds is a checkpoint, at which the next one starts
            assert starts(site) == [(0, "0"), (0, "1"), (1, "0"), (2, "2")]

    async def test_two_fan_outs_share_fairly(self) -> None:
        limiter = Limiter(max_at_once=2)
        async with sites(lasting(1), limiter=limiter) as ((client,), (site,)):
            async with anyio.create_task_group() as tasks:
                for name in "ab":
                    prompts = [f"{name}{number}" for number in range(40)]
                    tasks.start_soon(partial(gather, client, prompts, max_at_once=4))
            asked = [prompt[0] for _, prompt in starts(site)]
            assert all(3 <= asked[at : at + 8].count("a") <= 5 for at in range(72))
