"""How a batch goes: counts, and latencies in a bounded number of buckets."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from gprochat_anyio import Timing

_GROWTH: Final = math.log(1.04)
_LEAST: Final = 1e-4  # seconds


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Seconds that a share of the replies took at most; within 2 %, `most` exactly."""

    p50: float
    p90: float
    p99: float
    most: float


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """How a run went, or goes. Nothing in it tells a prompt or a reply."""

    answered: int
    """Prompts that this run got a reply to."""
    failed: int
    """Prompts, and bad lines, that this run recorded as failed."""
    answered_before: int
    """Prompts of the input whose reply the output held already."""
    failed_before: int
    """Prompts of the input whose failure the output held already."""
    in_flight: int
    """Prompts being asked; at the end those that were given up, to be asked by the next run."""
    total: int | None
    """Prompts of the input, where that is known."""
    complete: bool
    """Whether every prompt of the input has its line."""
    elapsed: float
    """Seconds since the run began."""
    characters: int
    """Of the replies of this run."""
    failures: Mapping[str, int]
    """How often each type of error was recorded by this run, by the name of its class."""
    latency: Percentiles | None
    """From a prompt's slot to the end of its reply; None without a reply."""
    first_chunk: Percentiles | None
    """From a request to its first text; None without a reply."""
    paused: float = 0.0
    """Seconds until the site is asked again, after a rate limit; 0.0 if it is not waited for."""

    @property
    def done(self) -> int:
        """Prompts of the input that have their line, old or new."""
        return self.answered + self.failed + self.answered_before + self.failed_before

    @property
    def all_answered(self) -> bool:
        """Whether every prompt of the input has its reply."""
        return self.complete and not self.failed and not self.failed_before


class Histogram:
    """Durations in seconds, in buckets that are each 4 % wider than the one before."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self._count = 0
        self._most = 0.0

    def add(self, seconds: float) -> None:
        self._buckets[int(math.log(max(seconds, _LEAST) / _LEAST) / _GROWTH)] += 1
        self._count += 1
        self._most = max(self._most, seconds)

    def percentiles(self) -> Percentiles | None:
        if not self._count:
            return None
        return Percentiles(self._at(0.5), self._at(0.9), self._at(0.99), self._most)

    def _at(self, share: float) -> float:
        buckets = sorted(self._buckets)
        counts = list(accumulate(self._buckets[bucket] for bucket in buckets))
        bucket = buckets[bisect_left(counts, math.ceil(share * self._count))]
        return min(_LEAST * math.exp((bucket + 0.5) * _GROWTH), self._most)


class Tally:
    """Counts what happens. Its size does not grow with the number of prompts."""

    def __init__(self) -> None:
        self.answered = self.answered_before = self.failed_before = self.characters = 0
        self.total: int | None = None
        self.complete = False
        self._failures: Counter[str] = Counter()
        self._latency, self._first_chunk = Histogram(), Histogram()

    def count_reply(self, timing: Timing) -> None:
        self.answered += 1
        self.characters += timing.characters
        self._latency.add(timing.total)
        self._first_chunk.add(timing.first_chunk)

    def count_failure(self, error: Exception) -> None:
        self._failures[type(error).__name__] += 1

    def summary(self, *, in_flight: int, elapsed: float, paused: float) -> BatchSummary:
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
        )
