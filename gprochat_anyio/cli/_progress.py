"""Progress of a batch on stderr: a display in a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gprochat_anyio.batch import BatchSummary, Percentiles

from ._batch_words import Rates, last_error, remaining, status
from ._exit_codes import say, with_options
from ._output import visible

LINES_EVERY: Final = 5.0
"""Interval between lines if stderr is not a terminal, in seconds."""

_BAD_LINES_SHOWN: Final = 10

_ECHO: Final = len("^C^C")
"""Width of a terminal's echo of two Ctrl-C, in columns."""


class QuietlyBroken(Console):
    """A console that falls silent if stderr is closed. The batch continues."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


def closing_table(summary: BatchSummary) -> Group:
    """Return the final summary: counts, types of failures, percentiles, next steps."""
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
    if summary.gave_up is not None:
        tables.append(Text(f"Given up: {visible(with_options(summary.gave_up))}"))
    elif summary.failed and summary.last_error is not None:
        tables.append(Text(f"Last error: {visible(with_options(summary.last_error))}"))
    if not summary.complete:
        tables.append("Run the same command again to continue.")
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
    """Progress of a batch for the duration of a block, and the full summary at its end.

    This class is for a stderr that is not a terminal. A thread writes the lines, so a slow reader
    does not delay the batch.
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
        with suppress(OSError):  # stderr is closed
            if (more := self._bad_lines - _BAD_LINES_SHOWN) > 0:
                self.say(f"{more:,} more bad lines; the output has them all")
            if exc_val is None and self._summary is not None:
                self._console.print(closing_table(self._summary))

    def see(self, summary: BatchSummary) -> None:
        """Record the latest summary, without waiting."""
        self._rates.see(summary)
        self._summary = summary

    def bad_line(self, _: int, reason: str) -> None:
        """Report a bad line, if it is one of the first.

        :param reason: The message, which names the line.
        """
        self._bad_lines += 1
        if self._bad_lines <= _BAD_LINES_SHOWN:
            self.say(reason)

    def say(self, text: str) -> None:
        """Show a line above the progress."""
        say(text)

    def _start(self) -> None:
        self._thread.start()

    def _end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _write_lines(self) -> None:
        while not self._ended.wait(LINES_EVERY):
            if (summary := self._summary) is not None:
                parts = [status(summary, self._rates), remaining(summary, self._rates)]
                say(", ".join(filter(None, [*parts, last_error(summary)])))


class Display(Progress):
    """Progress in a terminal: a bar and lines that a thread of `rich` updates."""

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
        with suppress(OSError):  # the terminal was closed
            self._console.print(Text(f"gprochat: {visible(text)}"))

    def _start(self) -> None:
        self._live.start()

    def _end(self) -> None:
        with suppress(OSError):  # as above
            self._live.stop()

    def _render(self) -> RenderableType:
        summary = self._summary
        if summary is None:
            return Text("reading the output ...")
        texts = filter(None, [status(summary, self._rates), last_error(summary)])
        lines = [Text(text, overflow="ellipsis", no_wrap=True) for text in texts]
        if summary.total is None:
            return self._with_margin(*lines)
        bar = Table.grid(expand=True, padding=(0, 1))
        bar.add_column(ratio=1)
        bar.add_column(justify="right")
        total = max(summary.total, 1)
        left = remaining(summary, self._rates)
        bar.add_row(
            ProgressBar(total=total, completed=summary.done),
            f"{summary.done / total:4.0%}" + (left and f"  {left}"),
        )
        return self._with_margin(bar, *lines)

    def _with_margin(self, *lines: RenderableType) -> RenderableType:
        """Return the lines with a margin, in which the terminal can echo ^C without a new line."""
        return Constrain(Group(*lines), max(self._console.width - _ECHO, 1))


def progress_on_stderr() -> Progress:
    """Return the progress that suits this process's stderr."""
    smart = sys.stderr.isatty() and not Console(stderr=True).is_dumb_terminal
    return Display() if smart else Progress()
