"""Rate limits of sites: a limiter lowers its limit, pauses, and gives up endpoints."""

from __future__ import annotations

import anyio
import anyio.to_thread
import pytest
from support.blocked import all_tasks_blocked
from support.limited_sites import STEADY, ask_all, lasting, numbers, once_refused, sites, starts
from support.loops import virtual
from support.prompted import AtOnce, echo
from support.retries import ONCE

from gprochat_anyio import (
    Limiter,
    LimiterStatistics,
    RateLimitError,
    RequestTimeoutError,
    Retry,
    Timeouts,
    gather,
)
from gprochat_anyio.testing import Pause, Refuse, Request, Say, Script


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
