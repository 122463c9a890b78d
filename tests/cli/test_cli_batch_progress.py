"""The progress of `gprochat batch`: its line, its display, the closing table."""

from __future__ import annotations

import io
import sys
import threading
from typing import Any

import pytest
from rich.console import Console

from gprochat_anyio.batch import BatchSummary, Percentiles
from gprochat_anyio.cli import _progress
from gprochat_anyio.cli._batch_words import Rates, last_error, remaining, status
from gprochat_anyio.cli._progress import Display, Progress, closing_table, progress_on_stderr

pytestmark = pytest.mark.usefixtures("clean_environment")


def summary(**values: Any) -> BatchSummary:
    seconds = Percentiles(0.5, 0.9, 0.99, 1.0)
    given: dict[str, Any] = {
        "answered": 60, "failed": 3, "answered_before": 40, "failed_before": 2, "in_flight": 16,
        "total": 205, "complete": False, "elapsed": 10.0, "characters": 6000,
        "failures": {"SiteError": 3}, "latency": seconds, "first_chunk": seconds,
    }  # fmt: skip
    return BatchSummary(**given | values)


def rates(*seen: BatchSummary) -> Rates:
    made = Rates()
    for one in seen:
        made.see(one)
    return made


class TestProgress:
    def test_is_one_honest_line(self) -> None:
        now = summary()
        assert status(now, rates(now)) == (
            "105 of 205 done, 5 failed, 16 in flight, 6.3/s, 600 characters/s"
        )
        assert remaining(now, rates(now)) == "0:00:16 left"
        assert status(summary(total=None), rates(now)).startswith("105 done, ")
        assert remaining(summary(total=None), rates(now)) == ""
        assert remaining(now, Rates()) == ""
        assert status(summary(paused=11.2), rates(now)).endswith(", waiting 12 s: rate limited")

    @pytest.mark.parametrize(
        ("waiting_for", "silent", "said"),
        [
            ("output", 0.0, ", waiting for the disk"),
            ("input", 4.9, " characters/s"),
            ("input", 61.7, ", waiting for the input, 62 s"),
            ("site", 30.0, ", waiting for the site, 30 s"),
            (None, 30.0, " characters/s"),
        ],
    )
    def test_says_what_it_waits_for(self, waiting_for: Any, silent: float, said: str) -> None:
        now = summary(waiting_for=waiting_for, silent=silent)
        assert status(now, rates(now)).endswith(said)

    def test_shows_the_last_error(self) -> None:
        assert last_error(summary()) == ""
        failed = summary(last_error="SiteError: down \x1b[2J", total=10)
        assert last_error(failed) == "last error: SiteError: down \\x1b[2J"
        late = summary(last_error="RequestTimeoutError: late (Timeouts.first_chunk)")
        assert last_error(late).endswith("late (--timeout-first-chunk)")
        console = Console(file=io.StringIO(), width=80)
        display = Display()
        for total in (10, None):
            display.see(summary(last_error="SiteError: down", total=total))
            console.print(display._render())
        assert console.file.getvalue().count("last error: SiteError: down") == 2  # type: ignore[attr-defined]

    def test_says_why_a_batch_was_given_up(self) -> None:
        console = Console(file=io.StringIO(), width=80)
        console.print(closing_table(summary(gave_up="3 prompts in a row, late (Timeouts.idle)")))
        assert "Given up: 3 prompts in a row, late (--timeout-idle)\n" in console.file.getvalue()  # type: ignore[attr-defined]

    def test_rates_are_recent(self) -> None:
        steps = [summary(elapsed=float(n), answered=min(n, 50)) for n in range(100)]
        assert rates(*steps).prompts == 0
        assert rates(*steps[:40]).prompts == 1
        assert len(rates(*steps)._seen) < 30

    def test_the_closing_table_fits(self) -> None:
        console = Console(file=io.StringIO(), width=80)
        console.print(closing_table(summary(last_error="Late: \x1b[2J late (Timeouts.total)")))
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert "not asked" in shown
        assert "failed before" in shown
        assert "to the end         0.500  0.900  0.990  1.000" in shown
        assert "Last error: Late: \\x1b[2J late (--timeout-total)" in " ".join(shown.split())
        console.print(closing_table(summary(latency=None, total=None)))

    def test_lines_come_every_few_seconds(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(_progress, "LINES_EVERY", 0.01)
        told = threading.Semaphore(0)
        lines: list[str] = []

        def tell(text: str) -> None:
            lines.append(text)
            told.release()

        monkeypatch.setattr(_progress, "say", tell)
        progress = Progress()
        with progress:
            assert not told.acquire(timeout=0.05), "nothing is known yet"
            progress.see(summary())
            assert told.acquire(timeout=20)
            progress.see(summary(total=None, last_error="SiteError: down"))
            while lines[-1].startswith("105 of"):
                assert told.acquire(timeout=20)
        assert lines[0].endswith(" characters/s, 0:00:16 left")
        assert lines[-1].endswith(" characters/s, last error: SiteError: down")
        assert "failed before" in capsys.readouterr().err

    def test_a_display_shows_what_it_knows(self) -> None:
        display = Display()
        console = Console(file=io.StringIO(), width=80)
        for known in (None, summary(total=None), summary(), summary(total=0, complete=True)):
            if known is not None:
                display.see(known)
            console.print(display._render())
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert "reading the output" in shown
        assert " 51%  0:00:16 left" in shown
        assert max(map(len, shown.splitlines())) <= 76, "^C^C must not break the last line"

    def test_a_display_can_say_more(self, capsys: pytest.CaptureFixture[str]) -> None:
        with Display() as display:
            display.see(summary(failed=0, failed_before=0))
            display.bad_line(3, "line 3: \x1b[2J")
        shown = capsys.readouterr().err
        assert "gprochat: line 3: \\x1b[2J\n" in shown
        assert "Run the same command again to continue." in shown

    @pytest.mark.parametrize(
        ("terminal", "term", "kind"),
        [(True, "xterm", Display), (True, "dumb", Progress), (False, "xterm", Progress)],
    )
    def test_suits_stderr(
        self, monkeypatch: pytest.MonkeyPatch, terminal: bool, term: str, kind: type
    ) -> None:
        class Stderr(io.StringIO):
            def isatty(self) -> bool:
                return terminal

        monkeypatch.setattr(sys, "stderr", Stderr())
        monkeypatch.setenv("TERM", term)
        assert type(progress_on_stderr()) is kind

    def test_survives_a_closed_stderr(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Stderr(io.StringIO):
            def flush(self) -> None:
                raise BrokenPipeError

        monkeypatch.setattr(sys, "stderr", Stderr())
        with Display() as display:
            display.see(summary())
            display.say("Hi")

    def test_no_summary_is_shown_after_an_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(ZeroDivisionError), Progress() as progress:
            progress.see(summary())
            raise ZeroDivisionError
        assert capsys.readouterr().err == ""
