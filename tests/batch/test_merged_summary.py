"""The merged summary of several shards equals that of one run with all prompts."""

from __future__ import annotations

from dataclasses import replace

from gprochat_anyio import EmptyReplyError, Timing
from gprochat_anyio.batch import BatchSummary
from gprochat_anyio.batch._summary import Tally

SECONDS = [0.01 * n for n in range(1, 201)]


def timing(seconds: float) -> Timing:
    return Timing(
        connect=0.0, first_chunk=seconds / 2, total=seconds, chunks=1, characters=3, attempts=1
    )


def summary_of(tally: Tally) -> BatchSummary:
    return tally.summary(in_flight=0, elapsed=1.0, paused=0.0)


def test_merged_shards_equal_one_run() -> None:
    one, merged = Tally(), Tally()
    shards = [Tally() for _ in range(3)]
    for n, seconds in enumerate(SECONDS):
        for tally in (one, shards[n % 2]):
            tally.count_reply(timing(seconds))
    for tally in (one, shards[2]):
        tally.count_failure(EmptyReplyError("nothing"))
        tally.answered_before, tally.failed_before = 7, 2
        tally.last_error = "EmptyReplyError: nothing"
        tally.gave_up = "100 failures in a row"
        tally.other_sites = {"http://other.test": 4}
    for shard in shards:
        merged.merge(summary_of(shard))
    assert summary_of(merged) == summary_of(one)
    again = Tally()
    again.merge(replace(summary_of(one), latency=None, first_chunk=None))
    assert summary_of(again).latency is None
    assert summary_of(again).answered == len(SECONDS)
