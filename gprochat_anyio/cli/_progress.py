"""How a batch goes, on stderr: a display in a terminal, lines elsewhere."""

from __future__ import annotations

import math
import sys
import threading
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gprochat_anyio.batch import BatchSummary, Percentiles

from ._exits import say
from ._output import visible

LINES_EVERY: Final = 5.0
"""Seconds between two lines where stderr is no terminal."""

_WINDOW: Final = 20.0
"""Seconds that rates are the average of."""

_BAD_LINES_SHOWN: Final = 10


class QuietlyBroken(Console):
    """A console that nobody needs to read: a closed stderr does not end the batch."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class Rates:
    """What happens in a second, lately."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque([(0.0, 0, 0)])

    def see(self, summary: BatchSummary) -> None:
        """Take the newest summary into account."""
        asked = summary.answered + summary.failed
        self._seen.append((summary.elapsed, asked, summary.characters))
        while len(self._seen) > 2 and summary.elapsed - self._seen[1][0] >= _WINDOW:
            self._seen.popleft()

    @property
    def prompts(self) -> float:
        return self._rate(1)

    @property
    def characters(self) -> float:
        return self._rate(2)

    def _rate(self, of: int) -> float:
        first, last = self._seen[0], self._seen[-1]
        passed = last[0] - first[0]
        return (last[of] - first[of]) / passed if passed > 0 else 0.0


def status(summary: BatchSummary, rates: Rates) -> str:
    """How it goes, in one line."""
    of = "" if summary.total is None else f" of {summary.total:,}"
    parts = [
        f"{summary.done:,}{of} done",
        f"{summary.failed + summary.failed_before:,} failed",
        f"{summary.in_flight:,} in flight",
        f"{rates.prompts:,.1f}/s",
        f"{rates.characters:,.0f} characters/s",
    ]
    if summary.paused:
        parts.append(f"waiting {math.ceil(summary.paused)} s: rate limited")
    return ", ".join(parts)


def remaining(summary: BatchSummary, rates: Rates) -> str:
    """How long it will still take; nothing where that can not be told."""
    if summary.total is None or not rates.prompts:
        return ""
    seconds = max(summary.total - summary.done, 0) / rates.prompts
    hours, minutes = divmod(round(seconds) // 60, 60)
    return f"{hours}:{minutes:02}:{round(seconds) % 60:02} left"


def closing_table(summary: BatchSummary) -> Group:
    """What has come of it: counts, types of failures, percentiles."""
    counts = Table.grid(padding=(0, 2))
    counts.add_column()
    counts.add_column(justify="right")

    def add(name: str, count: int) -> None:
        if count:
            counts.add_row(name, f"{count:,}")

    counts.add_row("answered", f"{summary.answered:,}")
    add("answered before", summary.answered_before)
    counts.add_row("failed", f"{summary.failed:,}")
    for kind, count in sorted(summary.failures.items()):
        add(f"  {kind}", count)
    add("failed before", summary.failed_before)
    if not summary.complete and summary.total is not None:
        add("not asked", summary.total - summary.done)
    counts.add_row("characters", f"{summary.characters:,}")
    counts.add_row("took", f"{summary.elapsed:,.1f} s")
    tables: list[RenderableType] = [counts]
    if summary.latency is not None and summary.first_chunk is not None:
        tables.append(_latencies(summary.first_chunk, summary.latency))
    if not summary.complete:
        tables.append("Run it again to go on.")
    if summary.failed + summary.failed_before:
        tables.append("Their lines say why they failed; --retry-failed asks them again.")
    return Group(*tables)


def _latencies(first_chunk: Percentiles, latency: Percentiles) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("seconds")
    for head in ("50 %", "90 %", "99 %", "most"):
        table.add_column(head, justify="right")
    for name, seconds in (("to the first text", first_chunk), ("to the end", latency)):
        values = (seconds.p50, seconds.p90, seconds.p99, seconds.most)
        table.add_row(name, *(f"{value:.3f}" for value in values))
    return table


class Progress:
    """Shows how a batch goes, for the time of a block; at its end the summary in full.

    Here for a stderr that is no terminal: in lines, which a thread writes, so that a reader that
    is behind does not hold the batch up.
    """

    def __init__(self) -> None:
        self._console = QuietlyBroken(stderr=True, highlight=False)
        self._rates = Rates()
        self._summary: BatchSummary | None = None
        self._bad_lines = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write_lines, daemon=True)

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self._end()
        with suppress(OSError):  # nobody reads it
            if (more := self._bad_lines - _BAD_LINES_SHOWN) > 0:
                self.say(f"{more:,} more bad lines; the output has them all")
            if exc_val is None and self._summary is not None:
                self._console.print(closing_table(self._summary))

    def see(self, summary: BatchSummary) -> None:
        """Take the newest summary; waits for nobody."""
        self._rates.see(summary)
        self._summary = summary

    def bad_line(self, _: int, reason: str) -> None:
        """Tell of a bad line; of many only the first ones.

        :param reason: names the line
        """
        self._bad_lines += 1
        if self._bad_lines <= _BAD_LINES_SHOWN:
            self.say(reason)

    def say(self, text: str) -> None:
        """Show a line that stays."""
        say(text)

    def _start(self) -> None:
        self._thread.start()

    def _end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _write_lines(self) -> None:
        while not self._ended.wait(LINES_EVERY):
            if (summary := self._summary) is not None:
                left = remaining(summary, self._rates)
                say(status(summary, self._rates) + (left and f", {left}"))


class Display(Progress):
    """In a terminal: a bar and a line, again and again, by a thread of `rich`."""

    def __init__(self) -> None:
        super().__init__()
        self._live = Live(
            get_renderable=self._render,
            console=self._console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def say(self, text: str) -> None:
        self._console.print(Text(f"gprochat: {visible(text)}"))

    def _start(self) -> None:
        self._live.start()

    def _end(self) -> None:
        self._live.stop()

    def _render(self) -> RenderableType:
        summary = self._summary
        if summary is None:
            return Text("reading the output ...")
        line = Text(status(summary, self._rates), overflow="ellipsis", no_wrap=True)
        if summary.total is None:
            return line
        bar = Table.grid(expand=True, padding=(0, 1))
        bar.add_column(ratio=1)
        bar.add_column(justify="right")
        total = max(summary.total, 1)
        left = remaining(summary, self._rates)
        bar.add_row(
            ProgressBar(total=total, completed=summary.done),
            f"{summary.done / total:4.0%}" + (left and f"  {left}"),
        )
        return Group(bar, line)


def progress_on_stderr() -> Progress:
    """What fits this process's stderr."""
    smart = sys.stderr.isatty() and not Console(stderr=True).is_dumb_terminal
    return Display() if smart else Progress()
