"""Summaries of a batch: counts, and latencies in a bounded number of buckets."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, Literal

from gprochat_anyio import Timing

_GROWTH: Final = math.log(1.04)
_LEAST: Final = 1e-4  # seconds

WaitingFor = Literal["rate limit", "output", "site", "input"]


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles of a duration, in seconds and within 2 %. `most` is the exact maximum."""

    p50: float
    p90: float
    p99: float
    most: float
    buckets: Mapping[int, int] = field(default_factory=dict, repr=False, compare=False)
    """Histogram of the durations, which allows merging those of several shards."""


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """Summary of a run, so far or at its end. It holds no prompt and no reply."""

    answered: int
    """Number of prompts that got a reply in this run."""
    failed: int
    """Number of prompts and invalid lines that this run recorded as failed."""
    answered_before: int
    """Number of prompts whose reply was in the output before this run."""
    failed_before: int
    """Number of prompts whose failure was in the output before this run."""
    in_flight: int
    """Number of running prompts; at the end, of the prompts that were given up. The next run asks
    those again."""
    total: int | None
    """Number of prompts in the input. `None` if it is unknown."""
    complete: bool
    """True if every prompt of the input has a line."""
    elapsed: float
    """Time since the start of the run, in seconds."""
    characters: int
    """Number of characters in this run's replies."""
    failures: Mapping[str, int]
    """Number of failures that this run recorded, by the name of the exception's class."""
    latency: Percentiles | None
    """Time from a prompt's start to the end of its reply. `None` without replies."""
    first_chunk: Percentiles | None
    """Time from a request to its first text. `None` without replies."""
    paused: float = 0.0
    """Time until a site that is paused for its rate limit is used again, in seconds. 0.0 if none is
    paused."""
    waiting_for: WaitingFor | None = None
    """The reason why the run waits at the moment. `None` if it does not wait."""
    silent: float = 0.0
    """Time since the last prompt ended, or since the start of the run, in seconds."""
    last_error: str | None = None
    """Type and message of this run's last failure. `None` without failures."""
    gave_up: str | None = None
    """The reason why the run was given up: too many consecutive failures. `None` if it was not."""
    limit_reached: bool = False
    """True if this run has asked as many prompts as its `limit` allows."""
    other_sites: Mapping[str, int] = field(default_factory=dict)
    """Number of lines of other sites that the output held before this run, by the site's name.
    With `any_site`, they count as answered or failed before. Otherwise, their prompts are asked
    again."""

    @property
    def done(self) -> int:
        """Number of prompts of the input that have a line."""
        return self.answered + self.failed + self.answered_before + self.failed_before

    @property
    def all_answered(self) -> bool:
        """True if every prompt of the input has a reply."""
        return self.complete and not self.failed and not self.failed_before


class Histogram:
    """Histogram of durations in seconds. Each bucket is 4 % wider than the one before."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self._count = 0
        self._most = 0.0

    def add(self, seconds: float) -> None:
        self._buckets[int(math.log(max(seconds, _LEAST) / _LEAST) / _GROWTH)] += 1
        self._count += 1
        self._most = max(self._most, seconds)

    def merge(self, other: Percentiles | None) -> None:
        """Add the durations of another histogram."""
        if other is not None:
            self._buckets.update(other.buckets)
            self._count += sum(other.buckets.values())
            self._most = max(self._most, other.most)

    def percentiles(self) -> Percentiles | None:
        if not self._count:
            return None
        buckets = dict(self._buckets)
        return Percentiles(self._at(0.5), self._at(0.9), self._at(0.99), self._most, buckets)

    def _at(self, share: float) -> float:
        buckets = sorted(self._buckets)
        counts = list(accumulate(self._buckets[bucket] for bucket in buckets))
        bucket = buckets[bisect_left(counts, math.ceil(share * self._count))]
        return min(_LEAST * math.exp((bucket + 0.5) * _GROWTH), self._most)


class Tally:
    """Counters of a run. Their size does not grow with the number of prompts."""

    def __init__(self) -> None:
        self.answered = self.answered_before = self.failed_before = self.characters = 0
        self.total: int | None = None
        self.complete = self.limit_reached = False
        self.last_error: str | None = None
        self.gave_up: str | None = None
        self.other_sites: Mapping[str, int] = {}
        self._failures: Counter[str] = Counter()
        self._latency, self._first_chunk = Histogram(), Histogram()

    def count_reply(self, timing: Timing) -> None:
        self.answered += 1
        self.characters += timing.characters
        self._latency.add(timing.total)
        self._first_chunk.add(timing.first_chunk)

    def count_failure(self, error: Exception) -> None:
        self._failures[type(error).__name__] += 1

    def merge(self, other: BatchSummary) -> None:
        """Add the counts of a shard, apart from its total."""
        self.answered += other.answered
        self.answered_before += other.answered_before
        self.failed_before += other.failed_before
        self.characters += other.characters
        self.last_error = other.last_error or self.last_error
        self.gave_up = self.gave_up or other.gave_up
        self.other_sites = Counter(self.other_sites) + Counter(other.other_sites)
        self._failures.update(other.failures)
        self._latency.merge(other.latency)
        self._first_chunk.merge(other.first_chunk)

    def summary(
        self,
        *,
        in_flight: int,
        elapsed: float,
        paused: float,
        silent: float = 0.0,
        waiting_for: WaitingFor | None = None,
    ) -> BatchSummary:
        return BatchSummary(
            answered=self.answered,
            failed=self._failures.total(),
            answered_before=self.answered_before,
            failed_before=self.failed_before,
            in_flight=in_flight,
            total=self.total,
            complete=self.complete,
            elapsed=elapsed,
            characters=self.characters,
            failures=dict(self._failures),
            latency=self._latency.percentiles(),
            first_chunk=self._first_chunk.percentiles(),
            paused=paused,
            silent=silent,
            waiting_for=waiting_for,
            last_error=self.last_error,
            gave_up=self.gave_up,
            limit_reached=self.limit_reached,
            other_sites=self.other_sites,
        )
