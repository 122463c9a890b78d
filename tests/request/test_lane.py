"""Lane: the number of concurrent requests to an endpoint, decided without a clock."""

from __future__ import annotations

from math import inf

from gprochat_anyio import RateLimitError, Retry
from gprochat_anyio._request.lane import Lane, LaneRequest

STEADY = Retry(attempts=3, backoff=0)
REFUSED = RateLimitError("", status=429)


def started(lane: Lane, count: int, *, may_be_held: bool = False) -> list[LaneRequest]:
    requests = [LaneRequest(may_be_held=may_be_held) for _ in range(count)]
    for request in requests:
        lane.start(request, 0.0)
    return requests


def refuse(lane: Lane, request: LaneRequest) -> bool:
    return lane.refused(request, REFUSED, STEADY, 0.0)


def has_room(lane: Lane, *, for_consumer: bool = False) -> bool:
    return lane.has_room_from(for_consumer=for_consumer) <= 0


def test_drops_to_the_number_of_running_requests() -> None:
    lane = Lane(16, adaptive=True)
    requests = started(lane, 10)
    for request in requests[4:]:
        assert refuse(lane, request)
    assert (lane.limit, lane.running, has_room(lane)) == (4, 4, False)


def test_one_probe_at_a_time_after_enough_replies() -> None:
    lane = Lane(16, adaptive=True)
    first, second, third = started(lane, 3)
    refuse(lane, third)
    assert lane.limit == 2
    lane.answered(first, 0.0)
    assert not has_room(lane)
    lane.answered(second, 0.0)
    assert has_room(lane)
    (probe,) = started(lane, 1)
    assert probe.is_probe
    assert not has_room(lane)
    lane.answered(probe, 0.0)
    assert lane.limit == 3


def test_a_refused_probe_keeps_the_limit_and_the_next_waits_twice_as_long() -> None:
    lane = Lane(16, adaptive=True)
    first, refused = started(lane, 2)
    refuse(lane, refused)
    waits = []
    for _ in range(8):
        answers = 0
        while not has_room(lane):
            lane.answered(first, 0.0)
            answers += 1
        waits.append(answers)
        refuse(lane, *started(lane, 1))
        assert lane.limit == 1
    assert waits == [1, 2, 4, 8, 16, 32, 32, 32]


def test_a_probe_that_replaces_another_does_not_count() -> None:
    lane = Lane(16, adaptive=True)
    first, second, refused = started(lane, 3)
    refuse(lane, refused)
    lane.answered(first, 0.0)
    lane.answered(second, 0.0)
    assert has_room(lane)
    (probe,) = started(lane, 1)
    lane.end(first)
    lane.end(second)
    assert has_room(lane)
    (next_one,) = started(lane, 1)
    refuse(lane, next_one)
    lane.answered(probe, 0.0)
    assert lane.limit == 1


def test_a_silent_endpoint_is_probed() -> None:
    """The running requests may take minutes. Each refusal doubles the delay, up to 32 s."""
    lane = Lane(16, adaptive=True)
    _, refused = started(lane, 2)
    refuse(lane, refused)
    now, waits, probe = 0.0, [], refused
    for _ in range(7):
        waits.append(lane.has_room_from(for_consumer=False) - now)
        now += waits[-1]
        probe = LaneRequest(may_be_held=False)
        lane.start(probe, now)
        assert probe.is_probe
        lane.refused(probe, REFUSED, STEADY, now)
    assert waits == [1, 2, 4, 8, 16, 32, 32]
    probe.is_probe = False
    lane.start(probe, now + 32)
    lane.answered(probe, now + 33)
    assert lane.limit == 2
    assert lane.has_room_from(for_consumer=False) == now + 34


def test_a_consumer_may_start_if_all_others_wait_for_it() -> None:
    lane = Lane(4, adaptive=True)
    *_, refused = started(lane, 2, may_be_held=True)
    refuse(lane, refused)
    assert not has_room(lane)
    assert has_room(lane, for_consumer=True)
    (mine,) = started(lane, 1)
    assert not has_room(lane, for_consumer=True)
    lane.end(mine)
    assert has_room(lane, for_consumer=True)


def test_gives_up_after_pauses_without_a_reply() -> None:
    lane = Lane(4, adaptive=True)
    assert [refuse(lane, *started(lane, 1)) for _ in range(3)] == [True, True, False]
    lane.answered(started(lane, 1)[0], 0.0)
    assert not lane.given_up(STEADY)


def test_gives_up_a_request_that_is_refused_while_others_succeed() -> None:
    lane = Lane(inf, adaptive=True)
    unlucky = LaneRequest(may_be_held=False)
    verdicts = []
    for _ in range(4):
        started(lane, 2)
        lane.start(unlucky, 0.0)
        unlucky.is_probe = False
        verdicts.append(refuse(lane, unlucky))
        (later,) = started(lane, 1)
        lane.answered(later, 0.0)
    assert verdicts == [True, True, True, False]


def test_a_request_beyond_the_limit_pauses_for_as_long_as_it_is_told() -> None:
    lane = Lane(4, adaptive=True)
    *_, refused = started(lane, 2, may_be_held=True)
    refuse(lane, refused)
    (mine,) = started(lane, 1)
    assert mine.is_beyond
    error = RateLimitError("", status=429, retry_after=9.0)
    assert lane.refused(mine, error, STEADY, 1.0)
    assert (lane.limit, lane.resumes, mine.backoff) == (1, 10.0, 0.0)


def test_a_fixed_limit_only_pauses() -> None:
    lane = Lane(4, adaptive=False)
    (request, *_) = started(lane, 2)
    error = RateLimitError("", status=429, retry_after=99.0)
    assert lane.refused(request, error, Retry(max_wait=5), 10.0)
    assert (lane.limit, lane.resumes) == (4, 15.0)
