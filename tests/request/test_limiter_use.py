"""Limiter: cancelled waits, event loops, and checked arguments."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint
from support.blocked import all_tasks_blocked
from support.limited_sites import OPEN, lasting, numbers, sites, starts
from support.loops import virtual
from support.prompted import AtOnce, echo, prompted

from gprochat_anyio import Client, Limiter, LimiterStatistics, as_completed, fan_out, gather, race
from gprochat_anyio.testing import Say


@virtual
class TestCancelled:
    @pytest.mark.parametrize("leaver", [1, 2, 3])
    async def test_a_waiter_leaves_the_queue(self, leaver: int) -> None:
        """The first waiter's timer serves all waiters."""
        limiter = Limiter(max_per_second=1)
        scopes = [anyio.CancelScope() for _ in range(4)]
        async with sites(echo, limiter=limiter) as ((client,), (site,)):

            async def ask(number: int) -> None:
                with scopes[number]:
                    await client.ask(str(number))

            async with anyio.create_task_group() as tasks:
                for number in range(4):
                    tasks.start_soon(ask, number)
                    await all_tasks_blocked()
                assert limiter.statistics().waiting == 3
                scopes[leaver].cancel()
                await all_tasks_blocked()
                assert limiter.statistics().waiting == 2
            left = [str(number) for number in range(4) if number != leaver]
            assert starts(site) == [(place, prompt) for place, prompt in enumerate(left)]

    async def test_an_unused_start_goes_to_the_next(self) -> None:
        limiter = Limiter(max_at_once=1)
        async with sites(OPEN, limiter=limiter) as ((client,), (site,)):
            scope = anyio.CancelScope()

            async def ask_cancelled() -> None:
                with scope:
                    await client.ask("cancelled")

            async with anyio.create_task_group() as tasks:
                async with client.stream("holds it"):
                    tasks.start_soon(ask_cancelled)
                    await all_tasks_blocked()
                    tasks.start_soon(client.ask, "next")
                    await all_tasks_blocked()
                assert limiter.statistics().running == 1  # it has the start, but has not resumed
                scope.cancel()
            assert [prompt for _, prompt in starts(site)] == ["holds it", "next"]
            assert limiter.statistics() == LimiterStatistics(0, 0, 0, 1, 0.0)

    async def test_the_second_of_two_limiters_gives_back_the_first(self) -> None:
        outer, inner = Limiter(max_at_once=1), Limiter(max_at_once=5)
        async with sites(lasting(9), limiter=outer) as ((client,), _):
            with anyio.move_on_after(1):
                await gather(client, numbers(3), limiter=inner)
            assert (inner.statistics().running, inner.statistics().waiting) == (0, 0)
            assert (outer.statistics().running, outer.statistics().waiting) == (0, 0)


class TestUse:
    async def test_not_in_another_event_loop(self, anyio_backend_name: str) -> None:
        limiter = Limiter(max_at_once=2)

        async def elsewhere() -> None:
            async with prompted(limiter=limiter) as (client, _):
                for use in (
                    partial(client.ask, "hi"),
                    partial(gather, client, ["hi"]),
                    client.stream("hi").__aenter__,
                ):
                    with pytest.raises(RuntimeError, match="this Limiter belongs to another event"):
                        await use()
            async with prompted() as (client, _):
                with pytest.raises(RuntimeError, match="this Limiter belongs to another event"):
                    await gather(client, ["hi"], limiter=limiter)

        async with prompted(limiter=limiter) as (client, _):
            await client.ask("hi")
            for backend in ("asyncio", "trio"):
                await anyio.to_thread.run_sync(partial(anyio.run, elsewhere, backend=backend))
            assert (await client.ask("hi")).text == "hi"

    async def test_only_a_start_that_waits_is_a_checkpoint(self) -> None:
        async with prompted(limiter=Limiter(max_per_second=1000)) as (client, _):
            for prompt in numbers(20):
                assert (await client.ask(prompt)).text == prompt

    async def test_many_cancelled_requests(self) -> None:
        """In real time: starts are neither lost nor exceeded, whenever tasks are cancelled."""
        limiter = Limiter(max_at_once=3, max_per_second=2000)
        asked = AtOnce(lambda request: (Say(request.prompt), checkpoint))
        async with prompted(asked, limiter=limiter) as (client, _):

            async def ask(number: int) -> None:
                with anyio.move_on_after(0.001 * (number % 7)):
                    await client.ask(str(number))

            async with anyio.create_task_group() as tasks:
                for number in range(100):
                    tasks.start_soon(ask, number)
            assert asked.most <= 3
            assert (limiter.statistics().running, limiter.statistics().waiting) == (0, 0)
            outcomes = await gather(client, numbers(20))
            assert [outcome.unwrap().text for outcome in outcomes] == numbers(20)

    @pytest.mark.parametrize("value", [0, -1, 1.5, True, "2", float("nan"), float("inf")])
    def test_max_at_once_is_checked(self, value: Any) -> None:
        with pytest.raises(ValueError, match=r"^max_at_once "):
            Limiter(max_at_once=value)

    @pytest.mark.parametrize("value", [0, -1, True, "2", float("nan"), float("inf")])
    def test_max_per_second_is_checked(self, value: Any) -> None:
        with pytest.raises(ValueError, match=r"^max_per_second "):
            Limiter(max_per_second=value)

    @pytest.mark.parametrize("value", [None, 1, "yes"])
    def test_adaptive_is_checked(self, value: Any) -> None:
        with pytest.raises(ValueError, match=r"^adaptive "):
            Limiter(adaptive=value)

    async def test_invalid_arguments_of_owners(self) -> None:
        wrong: Any = 5
        with pytest.raises(ValueError, match=r"^limiter "):
            Client("http://127.0.0.1:1", limiter=wrong)
        async with Client("http://127.0.0.1:1") as client:
            for make in (fan_out, as_completed):
                with pytest.raises(ValueError, match=r"^limiter "):
                    make(client, [], limiter=wrong)
                with pytest.raises(ValueError, match=r"^max_per_second must be set on the limiter"):
                    make(client, [], limiter=Limiter(), max_per_second=1)
                with pytest.raises(ValueError, match=r"^max_at_once "):
                    make(client, [], limiter=Limiter(), max_at_once=0)
            with pytest.raises(ValueError, match=r"^limiter "):
                race(client, "hi", limiter=wrong)

    def test_repr(self) -> None:
        limiter = Limiter(max_at_once=4, max_per_second=2.5)
        assert repr(limiter) == "Limiter(max_at_once=4, max_per_second=2.5, adaptive=True)"
        assert limiter.max_at_once == 4
        with pytest.raises(RuntimeError):
            limiter.statistics()
