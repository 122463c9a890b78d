"""Concurrency, rate, rate limits and deadlines of a fan-out, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from itertools import pairwise

import anyio
import pytest
from support.loops import virtual
from support.prompted import AtOnce, echo
from support.response_bytes import LAST_CHUNK

from gprochat_anyio import (
    Chunk,
    Failed,
    Finished,
    RateLimitError,
    RequestTimeoutError,
    Retry,
    Timeouts,
    as_completed,
    fan_out,
    gather,
)
from gprochat_anyio.testing import (
    Hang,
    Pause,
    Raw,
    Refuse,
    Request,
    Say,
    Script,
    ScriptedSite,
    Step,
    scripted_site,
)

pytestmark = virtual

STEADY = Retry(attempts=3, backoff=0)
"""Without jitter, so that times are exact."""

QUOTA = Refuse(429, "quota", 10)


def numbers(count: int) -> list[str]:
    return [str(n) for n in range(count)]


def lasting(seconds: float) -> Callable[[Request], Script]:
    def answer(request: Request) -> Script:
        return Say(request.prompt), Pause(seconds)

    return answer


def times(site: ScriptedSite) -> list[float]:
    """Return the time of each request, in seconds since the first."""
    return [request.time - site.requests[0].time for request in site.requests]


class RateLimited:
    """A site that refuses requests beyond a rate.

    :param per_second: Number of requests that it accepts per second.
    """

    def __init__(self, per_second: int, retry_after: float | None = 1) -> None:
        self.per_second = per_second
        self.retry_after = retry_after
        self.taken: list[float] = []
        self.refused: list[float] = []

    def __call__(self, request: Request) -> Script:
        now = request.time
        if sum(now - time < 1 for time in self.taken) >= self.per_second:
            self.refused.append(now)
            return Refuse(429, "slow down", self.retry_after)
        self.taken.append(now)
        return echo(request)


@pytest.mark.parametrize("max_at_once", [1, 3, 10])
async def test_max_at_once(max_at_once: int) -> None:
    asked = AtOnce(lasting(1))
    async with scripted_site(asked) as site, site.client() as client:
        began = anyio.current_time()
        await gather(client, numbers(30), max_at_once=max_at_once)
        assert asked.most == max_at_once
        assert anyio.current_time() - began == pytest.approx(30 / max_at_once)


async def test_max_per_second_is_smooth() -> None:
    async with scripted_site(lasting(0.1)) as site, site.client() as client:
        await gather(client, numbers(20), max_per_second=4)
        assert [b - a for a, b in pairwise(times(site))] == pytest.approx([0.25] * 19)


async def test_max_per_second_does_not_accumulate() -> None:
    async def prompts() -> AsyncGenerator[str]:
        for number in range(9):
            if number == 3:
                await anyio.sleep(10)
            yield str(number)

    async with scripted_site(echo) as site, site.client() as client:
        await gather(client, prompts(), max_per_second=2)
        gaps = [b - a for a, b in pairwise(times(site))]
        assert gaps == pytest.approx([0.5, 0.5, 9.0, 0.5, 0.5, 0.5, 0.5, 0.5])


async def test_max_per_second_with_replies_that_last() -> None:
    async with scripted_site(lasting(3)) as site, site.client() as client:
        await gather(client, numbers(6), max_per_second=1, max_at_once=2)
        assert times(site) == pytest.approx([0, 1, 3, 4, 6, 7])


async def test_clocks_start_with_the_slot() -> None:
    async with scripted_site(lasting(5)) as site, site.client() as client:
        outcomes = await gather(
            client, numbers(6), max_at_once=1, max_per_second=0.1, timeouts=Timeouts(total=6)
        )
        assert [o.unwrap().timing.total for o in outcomes] == pytest.approx([5.0] * 6)


async def test_a_clock_that_runs_out() -> None:
    def answer(request: Request) -> Script:
        return (lasting(50) if request.prompt == "1" else echo)(request)

    async with scripted_site(answer) as site, site.client() as client:
        outcomes = await gather(client, numbers(3), timeouts=Timeouts(idle=7))
        failure = outcomes[1].error
        assert isinstance(failure, RequestTimeoutError)
        assert (failure.phase, failure.limit, failure.partial_text) == ("idle", 7, "1")
        assert [o.error for o in outcomes[::2]] == [None, None]


async def test_a_slow_caller_causes_no_timeout() -> None:
    def answer(request: Request) -> Iterator[Step]:
        for _ in range(6):
            yield Say(request.prompt)
            yield Pause(0.1)

    async with scripted_site(answer) as site, site.client(timeouts=Timeouts(idle=1)) as c:
        texts = {0: "", 1: "", 2: ""}
        async with fan_out(c, ["abc", "b", "c"], max_at_once=2) as events:
            async for event in events:
                assert not isinstance(event, Failed)
                if isinstance(event, Chunk):
                    texts[event.index] += event.text
                await anyio.sleep(5)
        assert texts == {0: "abc" * 6, 1: "b" * 6, 2: "c" * 6}


async def test_total_runs_while_the_channel_is_full() -> None:
    """The connection is closed on time, and the error comes after all text."""

    def answer(request: Request) -> Iterator[Step]:
        for _ in range(6):
            yield Say(request.prompt)
            yield Pause(0.1)
        yield Hang()

    limits = Timeouts(idle=None, total=60)
    async with scripted_site(answer) as site, site.client() as client:
        async with fan_out(client, ["a"], max_at_once=1, timeouts=limits) as stream:
            await anyio.sleep(59)
            assert site.open_connections
            await anyio.sleep(2)
            assert not site.open_connections
            await anyio.sleep(100)
            (*chunks, failed) = [event async for event in stream]
        assert chunks == [Chunk(0, "a"), Chunk(0, "a"), Chunk(0, "aaaa")]
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, RequestTimeoutError)
        assert failed.error.phase == "total"
        assert failed.error.partial_text == "aaaaaa"


async def test_a_reply_that_completes_while_the_channel_is_full_is_in_time() -> None:
    script = [step for _ in range(6) for step in (Say("a"), Pause(0.1))]
    async with scripted_site(script) as site, site.client() as client:
        async with fan_out(client, ["a"], max_at_once=1, timeouts=Timeouts(total=60)) as stream:
            await anyio.sleep(100)
            (*chunks, finished) = [event async for event in stream]
        assert "".join(event.text for event in chunks if isinstance(event, Chunk)) == "aaaaaa"
        assert isinstance(finished, Finished)
        assert finished.reply.timing.total == pytest.approx(0.6)


async def test_total_stops_once_the_reply_is_complete() -> None:
    def answer(request: Request) -> Script:
        text = Say(request.prompt)
        return (
            text,
            Pause(0.1),
            Raw(text.data + LAST_CHUNK),
        )  # the end arrives together with the text

    async with scripted_site(answer) as site, site.client() as client:
        async with fan_out(client, ["a"], max_at_once=1, timeouts=Timeouts(total=60)) as events:
            await anyio.sleep(100)
            seen = [event async for event in events]
        assert seen[:2] == [Chunk(0, "a"), Chunk(0, "a")]
        assert isinstance(seen[2], Finished)
        assert seen[2].reply.timing.total == pytest.approx(0.1)


class TestRateLimits:
    async def test_all_of_them_wait(self) -> None:
        refusals = iter([True])

        def answer(request: Request) -> Script:
            if request.prompt == "2" and next(refusals, False):
                return Pause(1), Refuse(429, "slow down", 30)
            return Pause(2), Say(request.prompt)

        async with scripted_site(answer) as site, site.client(retry=STEADY) as client:
            outcomes = await gather(client, numbers(12), max_at_once=3)
            assert [o.unwrap().text for o in outcomes] == numbers(12)
            # at most as many as it was serving, and none before the pause ended
            rounds: dict[int, set[str]] = {}
            for request, time in zip(site.requests, times(site), strict=True):
                rounds.setdefault(round(time), set()).add(request.prompt)
            assert rounds == {
                0: {"0", "1", "2"},
                31: {"2", "3"},
                33: {"4", "5"},
                35: {"6", "7"},
                37: {"8", "9"},
                39: {"10", "11"},
            }
            assert [o.unwrap().timing.attempts for o in outcomes] == [1, 1, 2, *[1] * 9]

    async def test_a_site_that_accepts_few_requests(self) -> None:
        """The retries of a single prompt would not suffice."""
        limit = RateLimited(per_second=2)
        async with scripted_site(limit) as site, site.client(retry=STEADY) as client:
            outcomes = await gather(client, numbers(40), max_at_once=16)
            assert [o.unwrap().text for o in outcomes] == numbers(40)
            for time in limit.refused:
                assert not [t for t in limit.taken if time < t < time + 1]
            assert len(limit.refused) <= 40

    async def test_a_constant_limit(self) -> None:
        """Each prompt waits as `Retry` says, and has its own three attempts."""
        limit = RateLimited(per_second=2)
        async with scripted_site(limit) as site, site.client(retry=STEADY) as client:
            outcomes = await gather(client, numbers(40), max_at_once=16, adaptive=False)
            sent = [request.prompt for request in site.requests]
            for outcome in outcomes:
                if outcome.error is None:
                    assert outcome.unwrap().timing.attempts == sent.count(str(outcome.prompt)) <= 3
                else:
                    assert isinstance(outcome.error, RateLimitError)
                    assert sent.count(str(outcome.prompt)) == 3
            for time in limit.refused:
                assert not [t for t in limit.taken if time < t < time + 1]
            assert sum(o.error is not None for o in outcomes) == len(outcomes) - len(limit.taken)

    @pytest.mark.slow
    async def test_adaptive_stays_below_what_was_refused(self) -> None:
        async def refusals(*, adaptive: bool) -> int:
            def answer(request: Request) -> Script:
                if sum(r.outcome == "running" for r in site.requests) > 4:
                    return Refuse(429, "too many at once", 1)
                return lasting(1)(request)

            retry = Retry(attempts=3 if adaptive else 100, backoff=0)
            async with scripted_site(answer) as site, site.client(retry=retry) as client:
                outcomes = await gather(client, numbers(100), max_at_once=16, adaptive=adaptive)
                assert [o.unwrap().text for o in outcomes] == numbers(100)
                return len(site.requests) - 100

        assert await refusals(adaptive=True) < await refusals(adaptive=False) / 3

    @pytest.mark.parametrize("attempts", [1, 3])
    async def test_given_up(self, attempts: int) -> None:
        retry = Retry(attempts=attempts, backoff=0)
        async with scripted_site(QUOTA) as site, site.client(retry=retry) as client:
            began = anyio.current_time()
            outcomes = await gather(client, numbers(6), max_at_once=4)
            for outcome in outcomes:
                assert isinstance(outcome.error, RateLimitError)
                assert outcome.error.retry_after == 10
                assert outcome.error.__context__ is None
            # four at once, a single one after each pause, then each of the last two
            alone = attempts - 1
            assert len(site.requests) == 4 + alone + 2
            assert anyio.current_time() - began == pytest.approx((alone + 2) * 10)

    async def test_raised_once_given_up(self) -> None:
        async with scripted_site(QUOTA) as site, site.client(retry=STEADY) as client:
            with pytest.raises(RateLimitError) as caught:
                await gather(client, numbers(100), max_at_once=4, on_error="raise")
            assert caught.value.__notes__ == ["This was prompt 0 of a fan-out."]
            assert len(site.requests) == 6

    async def test_no_retry_of_other_statuses(self) -> None:
        limit = RateLimited(per_second=1)
        retry = Retry(backoff=0, statuses=frozenset())
        async with scripted_site(limit) as site, site.client(retry=retry) as client:
            outcomes = await gather(client, numbers(5), max_at_once=2)
            assert {type(o.error) for o in outcomes[:2]} == {type(None), RateLimitError}
            assert len(site.requests) == 5
            for time in limit.refused:
                assert not [t for t in limit.taken if time < t < time + 1]

    async def test_a_backoff_without_retry_after(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("random.uniform", lambda low, high: high)
        limit = RateLimited(per_second=1, retry_after=None)
        retry = Retry(attempts=5, backoff=0.5)
        async with scripted_site(limit) as site, site.client(retry=retry) as client:
            outcomes = await gather(client, numbers(3), max_at_once=1)
            assert [o.unwrap().text for o in outcomes] == numbers(3)
            assert times(site) == pytest.approx([0, 0, 0.5, 1.5, 1.5, 2, 3])

    async def test_the_longest_retry_after_counts(self) -> None:
        refused: set[str] = set()

        def answer(request: Request) -> Script:
            if request.prompt in refused:
                return echo(request)
            refused.add(request.prompt)
            number = int(request.prompt)
            return Pause(0.5 * number), Refuse(429, "slow down", 5 + 10 * number)

        async with scripted_site(answer) as site, site.client(retry=STEADY) as client:
            await gather(client, numbers(3))
            assert times(site) == pytest.approx([0, 0, 0, 26, 26, 26])

    async def test_a_single_probe_that_fails_otherwise(self) -> None:
        refused: set[str] = set()

        def answer(request: Request) -> Script:
            if request.prompt not in refused:
                refused.add(request.prompt)
                return Refuse(429, "slow down", 5)
            return Refuse(400, "no") if request.prompt == "0" else echo(request)

        async with scripted_site(answer) as site, site.client(retry=STEADY) as client:
            outcomes = await gather(client, numbers(3))
            assert [o.error is None for o in outcomes] == [False, True, True]

    async def test_running_replies_continue(self) -> None:
        refusals = iter([True])

        def answer(request: Request) -> Script:
            if request.prompt == "1" and next(refusals, False):
                return Pause(1), Refuse(429, "slow down", 30)
            return lasting(3)(request)

        async with scripted_site(answer) as site, site.client(retry=STEADY) as client:
            began = anyio.current_time()
            ended: dict[int, float] = {}
            async with fan_out(client, numbers(2)) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        ended[event.index] = anyio.current_time() - began
            assert ended == {0: pytest.approx(3), 1: pytest.approx(34)}

    async def test_the_next_probes_while_a_single_reply_runs(self) -> None:
        """A probe waits for eight times the pause that its refusal asks for."""
        refused: set[str] = set()

        def answer(request: Request) -> Script:
            if request.prompt in "01" and request.prompt not in refused:
                refused.add(request.prompt)
                return Refuse(429, "slow down", 5)
            pause = Pause(99 if request.prompt == "0" else 0)
            return Pause(1), Say(request.prompt), pause

        limits = Timeouts(idle=100)
        async with (
            scripted_site(answer) as site,
            site.client(retry=STEADY, timeouts=limits) as client,
        ):
            await gather(client, numbers(3), max_at_once=2)
            assert times(site) == pytest.approx([0, 0, 5, 45, 46])

    async def test_with_max_per_second(self) -> None:
        refusals = iter([True])

        def answer(request: Request) -> Script:
            if request.prompt == "0" and next(refusals, False):
                return Refuse(429, "slow down", 5)
            return echo(request)

        async with scripted_site(answer) as site, site.client(retry=STEADY) as client:
            async with as_completed(client, numbers(4), max_per_second=1) as outcomes:
                assert len([o.unwrap() async for o in outcomes]) == 4
            assert times(site) == pytest.approx([0, 5, 6, 7, 8])

    async def test_leaving_during_a_pause(self) -> None:
        slow_down = Refuse(429, "slow down", 1000)
        async with scripted_site(slow_down) as site, site.client(retry=STEADY) as client:
            began = anyio.current_time()
            with anyio.move_on_after(5) as scope:
                await gather(client, numbers(3))
            assert scope.cancelled_caught
            assert anyio.current_time() - began == pytest.approx(5)


async def test_prompts_that_follow_a_pause_run_concurrently() -> None:
    """The worker that was idle takes one of them, and others start."""

    async def prompts() -> AsyncGenerator[str]:
        yield "0"
        await anyio.sleep(10)
        for number in range(1, 4):
            yield str(number)

    async with scripted_site(lasting(1)) as site, site.client() as client:
        async with aclosing(prompts()) as source:
            await gather(client, source, max_at_once=3)
        assert times(site) == pytest.approx([0, 10, 10, 10])
