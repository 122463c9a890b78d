"""Texts about a batch in progress: its rates, waits, last error and remaining time."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from gprochat_anyio.batch import BatchSummary

from ._exit_codes import with_options
from ._output import visible

_WINDOW: Final = 20.0
"""Period over which rates are averaged, in seconds."""

_SILENCE: Final = 5.0
"""Time without an outcome after which the display says what the batch waits for, in seconds."""


class Rates:
    """Rates of a batch over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque([(0.0, 0, 0)])

    def see(self, summary: BatchSummary) -> None:
        """Record the latest summary."""
        asked = summary.answered + summary.failed
        self._seen.append((summary.elapsed, asked, summary.characters))
        while len(self._seen) > 2 and summary.elapsed - self._seen[1][0] >= _WINDOW:
            self._seen.popleft()

    @property
    def prompts(self) -> float:
        """Outcomes per second."""
        return self._rate(1)

    @property
    def characters(self) -> float:
        """Characters of replies per second."""
        return self._rate(2)

    def _rate(self, of: int) -> float:
        first, last = self._seen[0], self._seen[-1]
        passed = last[0] - first[0]
        return (last[of] - first[of]) / passed if passed > 0 else 0.0


def status(summary: BatchSummary, rates: Rates) -> str:
    """Return the state of a batch as one line."""
    of = "" if summary.total is None else f" of {summary.total:,}"
    parts = [
        f"{summary.done:,}{of} done",
        f"{summary.failed + summary.failed_before:,} failed",
        f"{summary.in_flight:,} in flight",
        f"{rates.prompts:,.1f}/s",
        f"{rates.characters:,.0f} characters/s",
    ]
    if waits := waiting(summary):
        parts.append(waits)
    return ", ".join(parts)


def waiting(summary: BatchSummary) -> str:
    """Return the text about what a batch waits for, empty if it does not wait."""
    if summary.paused:
        return f"waiting {math.ceil(summary.paused)} s: rate limited"
    if summary.waiting_for == "output":
        return "waiting for the disk"
    if summary.silent < _SILENCE:
        return ""
    if summary.waiting_for == "input":
        return f"waiting for the input, {summary.silent:.0f} s"
    return f"waiting for the site, {summary.silent:.0f} s" if summary.waiting_for == "site" else ""


def last_error(summary: BatchSummary) -> str:
    """Return the text about the last error, empty without one."""
    error = summary.last_error
    return "" if error is None else f"last error: {visible(with_options(error))}"


def remaining(summary: BatchSummary, rates: Rates) -> str:
    """Return the text about the remaining time, empty if it is unknown."""
    if summary.total is None or not rates.prompts:
        return ""
    seconds = max(summary.total - summary.done, 0) / rates.prompts
    hours, minutes = divmod(round(seconds) // 60, 60)
    return f"{hours}:{minutes:02}:{round(seconds) % 60:02} left"
