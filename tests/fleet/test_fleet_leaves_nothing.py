"""The retry budget of a fleet, and the absence of leaks after failures and cancellations."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.blocked import all_tasks_blocked
from support.fleets import FAILS, fleet_of, nothing_left
from support.loops import LOOPS
from support.prompted import pool_of
from support.tiers import examples

from gprochat_anyio import (
    Outcome,
    Timeouts,
    gather,
)
from gprochat_anyio._fleet.retry_budget import RetryBudget
from gprochat_anyio._request.chat_client import opener_of
from gprochat_anyio.testing import (
    Drop,
    Hang,
    Injection,
    Pause,
    Refuse,
    Reply,
    Say,
    cancelled,
    injections,
)


class TestBudget:
    async def test_waits_only_for_requests_in_flight(self) -> None:
        budget = RetryBudget()
        budget.tokens = 0
        first = budget.begin()
        ends: list[int] = []

        async def take() -> None:
            ends.append(await budget.take(math.inf))

        async with anyio.create_task_group() as tg:
            tg.start_soon(take)
            await all_tasks_blocked()
            later = budget.begin()
            budget.end(first)
            await all_tasks_blocked()
            assert ends == [0]
            tg.start_soon(take)
            await all_tasks_blocked()
            budget.succeed(later)
            await all_tasks_blocked()
            assert ends[1] > later
        budget.end(ends[1])

    async def test_cancelled_with_a_token(self) -> None:
        budget = RetryBudget()
        budget.tokens = 0
        first = budget.begin()
        async with anyio.create_task_group() as tg:
            tg.start_soon(budget.take, math.inf)
            await all_tasks_blocked()
            tg.cancel_scope.cancel()
            budget.succeed(first)
        assert budget.tokens == 1
        assert not budget._on_way

    async def test_cancelled_while_waiting(self) -> None:
        budget = RetryBudget()
        budget.tokens = 0
        first = budget.begin()
        with anyio.move_on_after(0.01):
            await budget.take(math.inf)
        assert not budget._waiting
        budget.succeed(first)
        assert budget.tokens == 1

    async def test_too_late(self) -> None:
        budget = RetryBudget()
        budget.tokens = 0
        number = budget.begin()
        assert await budget.take(anyio.current_time() + 0.01) == 0
        assert not budget._waiting
        budget.succeed(number)
        assert budget.tokens == 1


KINDS: dict[str, Callable[[], Reply]] = {
    "answers": lambda: "here",
    "slow": lambda: [Pause(0.01), Say("he"), Pause(0.01), Say("re")],
    "refuses": lambda: Refuse(503, "no"),
    "limits": lambda: Refuse(429, "slow", 0.01),
    "rejects": lambda: Refuse(401, "key"),
    "blames": lambda: Refuse(400, "prompt"),
    "drops": Drop,
    "breaks": lambda: [Say("he"), Drop()],
    "hangs": Hang,
}


@pytest.mark.parametrize("loop", LOOPS)
@examples(0.5)
@given(
    kinds=st.lists(
        st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=4), min_size=1, max_size=4
    ),
    hedge_after=st.sampled_from([None, 0.005]),
    leave_after=st.sampled_from([math.inf, 0.0, 0.02]),
    seed=st.integers(0, 1000),
)
def test_one_outcome_for_each_prompt_and_nothing_left(
    loop: tuple[str, dict[str, Any]],
    kinds: list[list[str]],
    hedge_after: float | None,
    leave_after: float,
    seed: int,
) -> None:
    async def main() -> None:
        replies = [tuple(KINDS[kind]() for kind in site) for site in kinds]
        async with fleet_of(*replies, hedge_after=hedge_after, eject_for=0.05) as (fleet, sites):
            opener_of(fleet).roster._random = random.Random(seed)
            outcomes: list[Outcome] = []
            with anyio.move_on_after(leave_after) as scope:
                outcomes = await gather(
                    fleet, map(str, range(12)), max_at_once=6, timeouts=Timeouts(total=0.2)
                )
            if not scope.cancelled_caught:
                assert [outcome.index for outcome in outcomes] == list(range(12))
            await nothing_left(fleet, sites)

    backend, options = loop
    anyio.run(main, backend=backend, backend_options=options)


@pytest.mark.usefixtures("no_garbage_collector")
@pytest.mark.parametrize("hedge_after", [None, 0.005])
@pytest.mark.parametrize(
    "replies", [(FAILS, Hang()), (FAILS, [Say("a"), Hang()]), (Hang(), [Say("a"), Hang()])]
)
async def test_cancelled_at_every_suspension(
    replies: tuple[Reply, ...], hedge_after: float | None
) -> None:
    async with fleet_of(*replies, hedge_after=hedge_after, eject_after=1000) as (fleet, sites):

        async def run() -> None:
            with anyio.move_on_after(0.05):
                async with fleet.stream("hi") as chunks:
                    await chunks.read()

        most = 0
        for moment, native in injections():
            end, at = "", 0
            while end != "not reached":
                at += 1
                opener_of(fleet)._budget.tokens = 10
                end = await cancelled(Injection(at, moment, native), run)
                for client in fleet.clients:
                    available, _, waiting = pool_of(client).statistics()
                    assert (available, waiting) == (1000, 0)
                assert [state.open_replies for state in fleet.states] == [0, 0]
                assert not opener_of(fleet)._budget._on_way
            most = max(most, at)
        assert most > 2
        await nothing_left(fleet, sites)


def test_a_request_that_other_code_cancels() -> None:
    """By `Task.cancel`, which only asyncio has."""

    async def main() -> None:
        async with fleet_of(Hang(), Hang(), hedge_after=5.0) as (fleet, sites):

            async def cancel() -> None:
                await all_tasks_blocked()
                tasks = asyncio.all_tasks()
                (task,) = (task for task in tasks if task.get_name() == "gprochat_anyio fleet")
                task.cancel()

            async with anyio.create_task_group() as tg:
                tg.start_soon(cancel)
                with pytest.raises(RuntimeError, match="cancelled by other code"):
                    await fleet.ask("hi")
            await nothing_left(fleet, sites)

    anyio.run(main)
