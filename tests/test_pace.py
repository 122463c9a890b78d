"""Pace: when the next request may start, decided without a clock."""

from __future__ import annotations

import math

import pytest

from gprochat_anyio import RateLimitError, Retry
from gprochat_anyio._fanout.pace import Pace

RETRY = Retry(attempts=3, backoff=0)
REFUSED = RateLimitError("slow down", retry_after=10.0)


def pace(
    *, max_at_once: int = 8, max_per_second: float | None = None, adaptive: bool = False
) -> Pace:
    return Pace(
        max_at_once=max_at_once, max_per_second=max_per_second, adaptive=adaptive, retry=RETRY
    )


def test_nothing_holds_it_back() -> None:
    free = pace()
    assert free.limit == 8
    for now in (-5.0, -5.0, 0.0, 7.0):
        assert free.free_at <= now
        free.start(now)


def test_starts_are_evenly_spaced() -> None:
    spaced = pace(max_per_second=4)
    spaced.start(100.0)
    assert spaced.free_at == 100.25
    spaced.start(103.0)
    assert spaced.free_at == 103.25


def test_a_pause_then_one_alone_then_the_others() -> None:
    slowed = pace()
    first, second = slowed.start(0.0), slowed.start(0.0)
    assert slowed.refused(first, REFUSED, 1.0)
    assert slowed.free_at == 11.0
    assert slowed.refused(second, RateLimitError("slow down", retry_after=20.0), 2.0)
    assert slowed.free_at == 22.0  # the same pause, longer
    alone = slowed.start(22.0)
    assert slowed.free_at == math.inf
    slowed.answered(alone)
    assert slowed.free_at == 22.0


def test_an_answer_from_before_the_pause_says_nothing_of_it() -> None:
    slowed = pace()
    first, second, third = (slowed.start(0.0) for _ in range(3))
    slowed.refused(first, REFUSED, 1.0)
    slowed.start(11.0)
    slowed.answered(second)
    slowed.failed(third)
    assert slowed.free_at == math.inf


def test_a_refusal_without_retry_after_does_not_make_the_pause_longer() -> None:
    slowed = pace()
    first, second = slowed.start(0.0), slowed.start(0.0)
    slowed.refused(first, REFUSED, 1.0)
    slowed.refused(second, RateLimitError("slow down"), 100.0)
    assert slowed.free_at == 100.0


def test_another_failure_of_the_one_alone_lets_the_others_go() -> None:
    slowed = pace()
    slowed.refused(slowed.start(0.0), REFUSED, 0.0)
    slowed.failed(slowed.start(10.0))
    assert slowed.free_at == 10.0


def test_given_up_after_as_many_pauses_as_attempts_and_not_for_good() -> None:
    slowed = pace()
    assert slowed.refused(slowed.start(0.0), REFUSED, 0.0)
    assert slowed.refused(slowed.start(10.0), REFUSED, 10.0)
    assert not slowed.given_up
    assert not slowed.refused(slowed.start(20.0), REFUSED, 20.0)
    assert slowed.given_up
    slowed.answered(slowed.start(30.0))
    assert not slowed.given_up
    assert slowed.refused(slowed.start(30.0), REFUSED, 30.0)


def test_other_limits_are_not_asked_again() -> None:
    slowed = Pace(
        max_at_once=1, max_per_second=None, adaptive=False, retry=Retry(statuses=frozenset({503}))
    )
    assert not slowed.refused(slowed.start(0.0), REFUSED, 0.0)
    assert slowed.free_at >= 10.0


def test_adaptive_halves_and_adds_one() -> None:
    adaptive = pace(adaptive=True)
    requests = [adaptive.start(0.0) for _ in range(8)]
    for request in requests:
        adaptive.refused(request, REFUSED, 0.0)
    assert adaptive.limit == 4  # once for each pause
    for _ in range(5):
        adaptive.answered(adaptive.start(10.0))
    assert adaptive.limit == 5
    for _ in range(100):
        adaptive.answered(adaptive.start(10.0))
    assert adaptive.limit == 8


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_limit_is_never_below_one(*, adaptive: bool) -> None:
    slowed = pace(adaptive=adaptive)
    for _ in range(20):
        slowed.refused(slowed.start(0.0), REFUSED, 0.0)
    assert slowed.limit == (1 if adaptive else 8)
