"""Limiter: ordered, evenly spaced and limited starts, over clients, fan-outs and races."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint
from support.blocked import all_tasks_blocked
from support.loops import VIRTUAL_LOOPS
from support.prompted import AtOnce, echo, prompted

from gprochat_anyio import (
    Client,
    Limiter,
    LimiterStatistics,
    RateLimitError,
    RequestTimeoutError,
    Retry,
    SiteError,
    Timeouts,
    as_completed,
    fan_out,
    gather,
    race,
)
from gprochat_anyio.testing import (
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

virtual = pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)

STEADY = Retry(attempts=3, backoff=0)
"""Without jitter, so that times are exact."""

ONCE = Retry(attempts=1)

LONG = Timeouts(first_chunk=None, idle=None, total=None)


def numbers(count: int) -> list[str]:
    return [str(n) for n in range(count)]


def lasting(seconds: float) -> Callable[[Request], Script]:
    """Return replies that echo the prompt, and end after a number of seconds."""
    return lambda request: (Pause(seconds), Say(request.prompt))


OPEN = [Say("text"), Pause(5)]


def once_refused(refusal: Refuse, prompt: str = "0") -> Callable[[Request], Script]:
    """Refuse the first request with a prompt. Each reply takes a second."""
    refusals = iter([refusal])

    def answer(request: Request) -> Script:
        refused = next(refusals, None) if request.prompt == prompt else None
        return lasting(1)(request) if refused is None else refused

    return answer


@asynccontextmanager
async def sites(
    *replies: Reply, **settings: Any
) -> AsyncIterator[tuple[Sequence[Client], Sequence[ScriptedSite]]]:
    """Serve each reply by an in-memory site. Yield the clients and the sites."""
    async with AsyncExitStack() as stack:
        found = [await stack.enter_async_context(scripted_site(reply)) for reply in replies]
        clients = [await stack.enter_async_context(site.client(**settings)) for site in found]
        yield clients, found


def starts(*asked: ScriptedSite) -> list[tuple[float, str]]:
    """Return the time and prompt of each request, in seconds since the first."""
    requests = sorted((r for site in asked for r in site.requests), key=lambda r: r.time)
    return [(round(r.time - requests[0].time, 3), r.prompt) for r in requests]


async def ask_all(client: Client, *prompts: str, **settings: Any) -> None:
    """Send the prompts concurrently, in this order. Raise their exceptions."""
    async with anyio.create_task_group() as tasks:
        for prompt in prompts:
            tasks.start_soon(partial(client.ask, prompt, **settings))
            for _ in range(3):
                await checkpoint()


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


@virtual
class TestRefusals:
    async def test_the_limit_drops_to_the_running_requests_and_others_continue(self) -> None:
        limiter = Limiter(max_at_once=4)
        refused = once_refused(Refuse(429, ""), "2")
        async with sites(refused, limiter=limiter, retry=STEADY) as ((client,), (site,)):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask_all, client, *numbers(3))
                await anyio.sleep(0.1)
                assert limiter.statistics() == LimiterStatistics(2, 1, 1, 2, 0.0)
            assert starts(site) == [(0, "0"), (0, "1"), (0, "2"), (1, "2")]

    @pytest.mark.parametrize("text_first", [True, False])
    async def test_plain_requests_find_a_higher_limit_again(self, *, text_first: bool) -> None:
        """Each success counts, even if the text arrives only with the end of its reply."""
        accepts = running = most = 0
        accepts = 2

        async def done() -> None:
            nonlocal running
            running -= 1

        def answer(request: Request) -> Script:
            nonlocal running, most
            if running >= accepts:
                return Refuse(429, "")
            running += 1
            most = max(most, running)
            steps = [Say("a"), Pause(1)] if text_first else [Pause(1), Say("a")]
            return [*steps, done]

        limiter = Limiter(max_at_once=8)
        async with sites(answer, limiter=limiter, retry=STEADY) as ((client,), _):

            async def ask_many() -> None:
                for _ in range(15):
                    await client.ask("hi")

            async with anyio.create_task_group() as tasks:
                for _ in range(8):
                    tasks.start_soon(ask_many)
                await anyio.sleep(5)
                assert limiter.statistics().limit in {2, 3}  # 3 if a probe used a gap
                accepts = 8
            assert limiter.statistics().limit == 8
            assert most == 8

    async def test_a_retry_after_pauses_that_endpoint_only(self) -> None:
        limiter = Limiter(max_at_once=4)
        answer = once_refused(Refuse(429, "", 30))
        async with sites(answer, echo, limiter=limiter, retry=STEADY) as ((a, b), found):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(a.ask, "0")
                await anyio.sleep(1)
                assert limiter.statistics() == LimiterStatistics(0, 1, 1, 1, 29.0)
                tasks.start_soon(a.ask, "1")
                tasks.start_soon(b.ask, "elsewhere")
            assert starts(*found) == [(0, "0"), (1, "elsewhere"), (30, "0"), (31, "1")]

    @pytest.mark.parametrize("adaptive", [True, False])
    @pytest.mark.parametrize(("retry_after", "pause"), [(7, 7), (99_999_999, 20)])
    async def test_a_retry_after_pauses_for_at_most_max_wait(
        self, retry_after: float, pause: float, *, adaptive: bool
    ) -> None:
        retry = Retry(backoff=0, max_wait=20)
        answer = once_refused(Refuse(429, "", retry_after))
        async with sites(answer, retry=retry) as ((client,), (site,)):
            outcomes = await gather(client, numbers(2), max_at_once=1, adaptive=adaptive)
            assert [o.unwrap().text for o in outcomes] == numbers(2)
            assert starts(site) == [(0, "0"), (pause, "0"), (pause + 1, "1")]

    @pytest.mark.parametrize("adaptive", [True, False])
    async def test_no_wait_for_a_pause_beyond_total(self, *, adaptive: bool) -> None:
        refusal = Refuse(429, "", 99_999_999)
        async with sites(refusal) as ((client,), (site,)):
            began = anyio.current_time()
            limits = Timeouts(total=1)
            outcomes = await gather(client, numbers(3), timeouts=limits, adaptive=adaptive)
            assert anyio.current_time() - began <= 1
            for outcome in outcomes:
                assert isinstance(outcome.error, RateLimitError)
                assert outcome.error.retry_after == 99_999_999
            assert len(site.requests) == 3

    async def test_a_request_during_a_pause_beyond_total(self) -> None:
        """With the client's limiter, `total` runs while the request waits for its start."""
        limiter = Limiter()
        async with sites(Refuse(429, "", 50), limiter=limiter, retry=ONCE) as ((client,), (site,)):
            with pytest.raises(RateLimitError):
                await client.ask("0")
            began = anyio.current_time()
            with pytest.raises(RateLimitError, match="asked for a pause") as caught:
                await client.ask("1", timeouts=Timeouts(total=9))
            assert 50 <= (caught.value.retry_after or 0) <= 60
            assert anyio.current_time() == began
            assert len(site.requests) == 1
            assert limiter.statistics().waiting == 0

    async def test_total_runs_while_a_request_waits_in_its_clients_queue(self) -> None:
        limiter = Limiter(max_at_once=1)
        async with sites(lasting(9), limiter=limiter) as ((client,), (site,)):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.ask, "0")
                await all_tasks_blocked()
                began = anyio.current_time()
                with pytest.raises(RequestTimeoutError) as caught:
                    await client.ask("1", timeouts=Timeouts(total=5))
                assert caught.value.elapsed == anyio.current_time() - began == pytest.approx(5)
                tasks.start_soon(client.ask, "2")  # its start is not lost
            assert starts(site) == [(0, "0"), (9, "2")]

    async def test_a_pause_ends_a_waiting_request_in_time(self) -> None:
        limiter = Limiter(max_at_once=2)

        def answer(request: Request) -> Script:
            return (Pause(2), Refuse(429, "", 50)) if request.prompt == "0" else lasting(9)(request)

        async with sites(answer, limiter=limiter, retry=ONCE) as ((client,), (site,)):
            outcomes = []

            async def ask(prompt: str, total: float) -> None:
                try:
                    await client.ask(prompt, timeouts=Timeouts(total=total))
                except (RateLimitError, RequestTimeoutError) as error:
                    outcomes.append((type(error), prompt))

            async with anyio.create_task_group() as tasks:
                for prompt, total in (("0", 100), ("1", 100), ("2", 20)):
                    tasks.start_soon(ask, prompt, total)
                    await all_tasks_blocked()
            assert outcomes == [(RateLimitError, "0"), (RequestTimeoutError, "2")]
            assert len(site.requests) == 2

    async def test_a_fixed_limit(self) -> None:
        limiter = Limiter(max_at_once=3, adaptive=False)
        asked = AtOnce(once_refused(Refuse(429, "")))
        async with sites(asked, limiter=limiter, retry=STEADY) as ((client,), (site,)):
            await ask_all(client, *numbers(6))
            assert limiter.statistics() == LimiterStatistics(0, 0, 1, 3, 0.0)
            assert asked.most == 3
            assert [time for time, _ in starts(site)] == [0, 0, 0, 0, 1, 1, 1]
            assert sorted(prompt for _, prompt in starts(site)) == sorted(["0", *numbers(6)])

    async def test_a_fixed_limit_counts_attempts(self) -> None:
        limiter = Limiter(adaptive=False)
        async with sites(Refuse(429, "", 5), limiter=limiter, retry=STEADY) as ((client,), (site,)):
            with pytest.raises(RateLimitError):
                await client.ask("0")
            assert starts(site) == [(0, "0"), (5, "0"), (10, "0")]

    async def test_gives_up_an_endpoint_that_refuses_everything(self) -> None:
        limiter = Limiter(max_at_once=8)
        async with sites(Refuse(429, "", 5), limiter=limiter, retry=STEADY) as ((client,), (site,)):
            began = anyio.current_time()
            outcomes = await gather(client, numbers(8), limiter=limiter)
            assert all(isinstance(o.error, RateLimitError) for o in outcomes)
            assert anyio.current_time() - began == pytest.approx(10)
            assert len(site.requests) == 8 + 2  # after each pause a single one

    async def test_one_success_resets_the_count_of_pauses(self) -> None:
        refusals = iter([True, True, False, True, True])

        def answer(request: Request) -> Script:
            return Refuse(429, "", 5) if next(refusals, False) else request.prompt

        async with sites(answer, retry=STEADY) as ((client,), (site,)):
            outcomes = await gather(client, numbers(3), max_at_once=1)
            assert [o.unwrap().text for o in outcomes] == numbers(3)
            assert [time for time, _ in starts(site)] == [0, 5, 10, 10, 15, 20, 20]


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
