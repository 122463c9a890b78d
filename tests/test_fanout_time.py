"""Limit, rate, slow-down and clocks of a fan-out, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from itertools import pairwise

import anyio
import pytest
from loops import VIRTUAL_LOOPS
from prompted import echo, prompted_in_memory
from scripted import HEAD, LAST_CHUNK, Script, chunk, error, reply

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

pytestmark = pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)

STEADY = Retry(attempts=3, backoff=0)
"""No jitter, so that times are exact."""


def numbers(count: int) -> list[str]:
    return [str(n) for n in range(count)]


def lasting(seconds: float) -> Callable[[str], Script]:
    def answer(prompt: str) -> Script:
        return (HEAD + chunk(prompt), seconds, LAST_CHUNK)

    return answer


class RateLimited:
    """Refuses what comes sooner than it has asked for, and so many requests besides.

    :param per_second: how many requests it takes in a second
    """

    def __init__(self, per_second: int, retry_after: str | None = "1") -> None:
        self.per_second = per_second
        self.fields = {} if retry_after is None else {"Retry_After": retry_after}
        self.taken: list[float] = []
        self.refused: list[tuple[float, str]] = []

    def __call__(self, prompt: str) -> Script:
        now = anyio.current_time()
        if sum(now - time < 1 for time in self.taken) >= self.per_second:
            self.refused.append((now, prompt))
            return (error(429, "slow down", **self.fields),)
        self.taken.append(now)
        return echo(prompt)


@pytest.mark.parametrize("max_at_once", [1, 3, 10])
async def test_max_at_once(monkeypatch: pytest.MonkeyPatch, max_at_once: int) -> None:
    async with prompted_in_memory(monkeypatch, lasting(1.0)) as (client, asked, _):
        began = anyio.current_time()
        await gather(client, numbers(30), max_at_once=max_at_once)
        assert asked.at_once == max_at_once
        assert anyio.current_time() - began == pytest.approx(30 / max_at_once)


async def test_max_per_second_is_smooth(monkeypatch: pytest.MonkeyPatch) -> None:
    async with prompted_in_memory(monkeypatch, lasting(0.1)) as (client, asked, _):
        await gather(client, numbers(20), max_per_second=4)
        assert [b - a for a, b in pairwise(asked.times)] == pytest.approx([0.25] * 19)


async def test_max_per_second_saves_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def prompts() -> AsyncGenerator[str]:
        for number in range(9):
            if number == 3:
                await anyio.sleep(10)
            yield str(number)

    async with prompted_in_memory(monkeypatch) as (client, asked, _):
        await gather(client, prompts(), max_per_second=2)
        gaps = [b - a for a, b in pairwise(asked.times)]
        assert gaps == pytest.approx([0.5, 0.5, 9.0, 0.5, 0.5, 0.5, 0.5, 0.5])


async def test_max_per_second_with_replies_that_last(monkeypatch: pytest.MonkeyPatch) -> None:
    async with prompted_in_memory(monkeypatch, lasting(3.0)) as (client, asked, _):
        await gather(client, numbers(6), max_per_second=1, max_at_once=2)
        began = asked.times[0]
        assert [t - began for t in asked.times] == pytest.approx([0, 1, 3, 4, 6, 7])


async def test_clocks_start_with_the_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    async with prompted_in_memory(monkeypatch, lasting(5.0)) as (client, _, _):
        outcomes = await gather(
            client, numbers(6), max_at_once=1, max_per_second=0.1, timeouts=Timeouts(total=6)
        )
        assert [o.unwrap().timing.total for o in outcomes] == pytest.approx([5.0] * 6)


async def test_a_clock_that_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(prompt: str) -> Script:
        return lasting(50.0)(prompt) if prompt == "1" else echo(prompt)

    async with prompted_in_memory(monkeypatch, answer) as (client, _, _):
        outcomes = await gather(client, numbers(3), timeouts=Timeouts(idle=7))
        failure = outcomes[1].error
        assert isinstance(failure, RequestTimeoutError)
        assert (failure.phase, failure.limit, failure.partial_text) == ("idle", 7, "1")
        assert [o.error for o in outcomes[::2]] == [None, None]


async def test_a_slow_caller_is_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(prompt: str) -> Script:
        return (HEAD, *[step for _ in range(6) for step in (chunk(prompt), 0.1)], LAST_CHUNK)

    async with prompted_in_memory(monkeypatch, answer, timeouts=Timeouts(idle=1)) as (c, _, _):
        texts = {0: "", 1: "", 2: ""}
        async with fan_out(c, ["abc", "b", "c"], max_at_once=2) as events:
            async for event in events:
                assert not isinstance(event, Failed)
                if isinstance(event, Chunk):
                    texts[event.index] += event.text
                await anyio.sleep(5)
        assert texts == {0: "abc" * 6, 1: "b" * 6, 2: "c" * 6}


async def test_total_goes_on_while_the_channel_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(prompt: str) -> Script:
        return (HEAD, *[step for _ in range(6) for step in (chunk(prompt), 0.1)], LAST_CHUNK)

    async with prompted_in_memory(monkeypatch, answer) as (client, _, _):
        events = []
        async with fan_out(client, ["a"], max_at_once=1, timeouts=Timeouts(total=60)) as stream:
            await anyio.sleep(100)
            async for event in stream:
                events.append(event)  # noqa: PERF401
        (*chunks, failed) = events
        assert chunks == [Chunk(0, "a")]
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, RequestTimeoutError)
        assert failed.error.phase == "total"
        assert failed.error.partial_text == "aa"


async def test_total_does_not_go_on_once_the_reply_is_complete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(prompt: str) -> Script:
        return (HEAD + chunk(prompt), 0.1, chunk(prompt) + LAST_CHUNK)

    async with prompted_in_memory(monkeypatch, answer) as (client, _, _):
        async with fan_out(client, ["a"], max_at_once=1, timeouts=Timeouts(total=60)) as events:
            await anyio.sleep(100)
            seen = [event async for event in events]
        assert seen[:2] == [Chunk(0, "a"), Chunk(0, "a")]
        assert isinstance(seen[2], Finished)
        assert seen[2].reply.timing.total == pytest.approx(0.1)


class TestRateLimits:
    async def test_all_of_them_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        refusals = iter([True])

        def answer(prompt: str) -> Script:
            if prompt == "2" and next(refusals, False):
                return (1.0, error(429, "slow down", Retry_After="30"))
            return (2.0, reply(prompt))

        async with prompted_in_memory(monkeypatch, answer, retry=STEADY) as (client, asked, _):
            outcomes = await gather(client, numbers(12), max_at_once=3)
            assert [o.unwrap().text for o in outcomes] == numbers(12)
            # the refused one alone first, then the others; none before the pause was over
            began = asked.times[0]
            rounds: dict[int, set[str]] = {}
            for prompt, time in zip(asked.prompts, asked.times, strict=True):
                rounds.setdefault(round(time - began), set()).add(prompt)
            assert rounds == {
                0: {"0", "1", "2"},
                31: {"2"},
                33: {"3", "4", "5"},
                35: {"6", "7", "8"},
                37: {"9", "10", "11"},
            }
            assert [o.unwrap().timing.attempts for o in outcomes] == [1, 1, 2, *[1] * 9]

    @pytest.mark.parametrize("adaptive", [False, True])
    async def test_a_site_that_takes_few(
        self, monkeypatch: pytest.MonkeyPatch, *, adaptive: bool
    ) -> None:
        """Each prompt's own three attempts would be burnt at once."""
        site = RateLimited(per_second=2)
        async with prompted_in_memory(monkeypatch, site, retry=STEADY) as (client, _, _):
            outcomes = await gather(client, numbers(40), max_at_once=16, adaptive=adaptive)
            assert [o.unwrap().text for o in outcomes] == numbers(40)
            for time, _ in site.refused:
                assert not [t for t in site.taken if time < t < time + 1]
            assert len(site.refused) <= (100 if adaptive else 20 * 15)

    async def test_adaptive_stays_below_what_was_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        running = 0

        def answer(prompt: str) -> Script:
            nonlocal running

            async def end() -> None:
                nonlocal running
                running -= 1

            running += 1
            if running > 4:
                return (end, error(429, "too many at once", Retry_After="1"))
            return (HEAD + chunk(prompt), 1.0, end, LAST_CHUNK)

        async def refusals(*, adaptive: bool) -> int:
            async with prompted_in_memory(monkeypatch, answer, retry=STEADY) as (client, asked, _):
                outcomes = await gather(client, numbers(100), max_at_once=16, adaptive=adaptive)
                assert [o.unwrap().text for o in outcomes] == numbers(100)
                return len(asked.prompts) - 100

        assert await refusals(adaptive=True) < await refusals(adaptive=False) / 3

    @pytest.mark.parametrize("attempts", [1, 3])
    async def test_given_up(self, monkeypatch: pytest.MonkeyPatch, attempts: int) -> None:
        def answer(prompt: str) -> Script:
            return (error(429, "quota", Retry_After="10"),)

        retry = Retry(attempts=attempts, backoff=0)
        async with prompted_in_memory(monkeypatch, answer, retry=retry) as (client, asked, _):
            began = anyio.current_time()
            outcomes = await gather(client, numbers(6), max_at_once=4)
            for outcome in outcomes:
                assert isinstance(outcome.error, RateLimitError)
                assert outcome.error.retry_after == 10
                assert outcome.error.__context__ is None
            # four at once, one of them alone after each pause, then each of the last two
            alone = attempts - 1
            assert len(asked.prompts) == 4 + alone + 2
            assert anyio.current_time() - began == pytest.approx((alone + 2) * 10)

    async def test_raised_once_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def answer(prompt: str) -> Script:
            return (error(429, "quota", Retry_After="10"),)

        async with prompted_in_memory(monkeypatch, answer, retry=STEADY) as (client, asked, _):
            with pytest.raises(RateLimitError) as caught:
                await gather(client, numbers(100), max_at_once=4, on_error="raise")
            assert caught.value.__notes__ == ["This was prompt 0 of a fan-out."]
            assert len(asked.prompts) == 6

    async def test_not_asked_again_where_retry_does_not_cover_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site = RateLimited(per_second=1)
        retry = Retry(backoff=0, statuses=frozenset())
        async with prompted_in_memory(monkeypatch, site, retry=retry) as (client, asked, _):
            outcomes = await gather(client, numbers(5), max_at_once=2)
            assert {type(o.error) for o in outcomes[:2]} == {type(None), RateLimitError}
            assert len(asked.prompts) == 5
            for time, _ in site.refused:
                assert not [t for t in site.taken if time < t < time + 1]

    async def test_a_backoff_without_retry_after(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("random.uniform", lambda low, high: high)
        site = RateLimited(per_second=1, retry_after=None)
        retry = Retry(attempts=5, backoff=0.5)
        async with prompted_in_memory(monkeypatch, site, retry=retry) as (client, asked, _):
            outcomes = await gather(client, numbers(3), max_at_once=1)
            assert [o.unwrap().text for o in outcomes] == numbers(3)
            began = asked.times[0]
            assert [t - began for t in asked.times] == pytest.approx([0, 0, 0.5, 1.5, 1.5, 2, 3])

    async def test_the_longest_retry_after_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        refused: set[str] = set()

        def answer(prompt: str) -> Script:
            if prompt in refused:
                return echo(prompt)
            refused.add(prompt)
            seconds = 5 + 10 * int(prompt)
            return (0.5 * int(prompt), error(429, "slow down", Retry_After=str(seconds)))

        async with prompted_in_memory(monkeypatch, answer, retry=STEADY) as (client, asked, _):
            await gather(client, numbers(3))
            began = asked.times[0]
            assert [t - began for t in asked.times] == pytest.approx([0, 0, 0, 26, 26, 26])

    async def test_one_alone_that_fails_otherwise(self, monkeypatch: pytest.MonkeyPatch) -> None:
        refused: set[str] = set()

        def answer(prompt: str) -> Script:
            if prompt not in refused:
                refused.add(prompt)
                return (error(429, "slow down", Retry_After="5"),)
            return (error(400, "no"),) if prompt == "0" else echo(prompt)

        async with prompted_in_memory(monkeypatch, answer, retry=STEADY) as (client, _, _):
            outcomes = await gather(client, numbers(3))
            assert [o.error is None for o in outcomes] == [False, True, True]

    async def test_replies_that_run_go_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        refusals = iter([True])

        def answer(prompt: str) -> Script:
            if prompt == "1" and next(refusals, False):
                return (1.0, error(429, "slow down", Retry_After="30"))
            return lasting(3.0)(prompt)

        async with prompted_in_memory(monkeypatch, answer, retry=STEADY) as (client, _, _):
            began = anyio.current_time()
            ended: dict[int, float] = {}
            async with fan_out(client, numbers(2)) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        ended[event.index] = anyio.current_time() - began
            assert ended == {0: pytest.approx(3), 1: pytest.approx(34)}

    async def test_the_others_go_at_the_first_text_of_the_one_alone(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        refused: set[str] = set()

        def answer(prompt: str) -> Script:
            if prompt not in refused:
                refused.add(prompt)
                return (error(429, "slow down", Retry_After="5"),)
            return (1.0, HEAD + chunk(prompt), 50.0 if prompt == "0" else 0.0, LAST_CHUNK)

        limits = Timeouts(idle=100)
        async with prompted_in_memory(monkeypatch, answer, retry=STEADY, timeouts=limits) as (
            client,
            asked,
            _,
        ):
            await gather(client, numbers(3))
            began = asked.times[0]
            assert [t - began for t in asked.times] == pytest.approx([0, 0, 0, 5, 6, 6])

    async def test_with_max_per_second(self, monkeypatch: pytest.MonkeyPatch) -> None:
        refusals = iter([True])

        def answer(prompt: str) -> Script:
            if prompt == "0" and next(refusals, False):
                return (error(429, "slow down", Retry_After="5"),)
            return echo(prompt)

        async with prompted_in_memory(monkeypatch, answer, retry=STEADY) as (client, asked, _):
            async with as_completed(client, numbers(4), max_per_second=1) as outcomes:
                assert len([o.unwrap() async for o in outcomes]) == 4
            began = asked.times[0]
            assert [t - began for t in asked.times] == pytest.approx([0, 5, 6, 7, 8])

    async def test_leaving_during_a_pause(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def answer(prompt: str) -> Script:
            return (error(429, "slow down", Retry_After="1000"),)

        async with prompted_in_memory(monkeypatch, answer, retry=STEADY) as (client, _, _):
            began = anyio.current_time()
            with anyio.move_on_after(5) as scope:
                await gather(client, numbers(3))
            assert scope.cancelled_caught
            assert anyio.current_time() - began == pytest.approx(5)
