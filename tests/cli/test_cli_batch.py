"""`gprochat batch` in this process: settings, formats, exit statuses, messages."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import click
import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from support.batch_site import BatchSite, batch_site_in_thread, echo
from support.raw_site import environment

from gprochat_anyio.batch import BatchSummary, Percentiles
from gprochat_anyio.cli import _batch, _batch_run, _progress
from gprochat_anyio.cli._batch_words import Rates, last_error, remaining, status
from gprochat_anyio.cli._ctrl_c import CtrlC
from gprochat_anyio.cli._main import gprochat
from gprochat_anyio.cli._progress import (
    Display,
    Progress,
    closing_table,
    progress_on_stderr,
)
from gprochat_anyio.testing import Hang, Refuse, Request, Script

BACKENDS = ["asyncio", "trio"]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) - environment().keys():
        monkeypatch.delenv(name)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return f"--backend={request.param}"


def some_fail(request: Request) -> Script:
    return Refuse(400, "no") if "fail" in request.prompt else echo(request)


@pytest.fixture
def site() -> Iterator[BatchSite]:
    with batch_site_in_thread(some_fail) as site:
        yield site


def run(*arguments: str | Path, stdin: str | bytes = "", **env: str) -> Result:
    return CliRunner().invoke(gprochat, ["batch", *map(str, arguments)], input=stdin, env=env)


def written(out: Path) -> list[dict[str, Any]]:
    return sorted(map(json.loads, out.read_bytes().splitlines()), key=lambda line: line["index"])


def test_help_fits_a_screen() -> None:
    result = CliRunner().invoke(gprochat, ["batch", "--help"], env={"GPROCHAT_SECRET_KEY": "s3"})
    lines = result.stdout.splitlines()
    assert len(lines) <= 23, "one line is the shell's"
    assert max(map(len, lines)) <= 79
    assert "s3" not in result.stdout


class TestRuns:
    def test_a_file_to_its_end(self, tmp_path: Path, site: BatchSite, backend: str) -> None:
        source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        source.write_text('{"prompt": "one", "id": 1}\n{"prompt": "two", "id": 2}\n')
        result = run(source, "--out", out, "--url", site.url, backend, "--max-at-once=2")
        assert (result.stdout, result.exit_code) == ("", 0)
        assert [line["text"] for line in written(out)] == ["re: one", "re: two"]
        assert re.search(r"answered +2\n", result.stderr)
        assert "99 %" in result.stderr
        again = run(source, "--out", out, "--url", site.url, backend)
        assert re.search(r"answered before +2\n", again.stderr)
        assert len(site.asked) == 2

    @pytest.mark.parametrize(
        ("options", "prompts"),
        [
            ([], {'{"prompt": "x"}', "fail"}),
            (["--format=text"], {'{"prompt": "x"}', "fail"}),
            (["--format=jsonl"], {"x"}),
        ],
    )
    def test_stdin(
        self, tmp_path: Path, site: BatchSite, options: list[str], prompts: set[str], backend: str
    ) -> None:
        out = tmp_path / "out"
        arguments = ["-", "--out", str(out), "--url", site.url, backend, *options]
        result = run(
            *arguments,
            stdin='fail\n\n{"prompt": "x"}\n',
        )
        assert result.exit_code == 1
        assert set(site.asked) == prompts
        assert len(written(out)) == 2
        assert ("line 1: invalid JSON" in result.stderr) == (options == ["--format=jsonl"])

    def test_failures_and_their_retry(self, tmp_path: Path, site: BatchSite) -> None:
        source, out = tmp_path / "in.txt", tmp_path / "out.jsonl"
        source.write_text("one\nfail\n")
        arguments = (source, "--out", out, "--url", site.url)
        result = run(*arguments)
        assert result.exit_code == 1
        assert "SiteError" in result.stderr
        assert run(*arguments, "--quiet").exit_code == 1, "one is still failed"
        site.answer = echo
        result = run(*arguments, "--retry-failed", "--quiet")
        assert (result.exit_code, result.output) == (0, "")
        assert [line["text"] for line in written(out)] == ["re: one", "re: fail"]
        assert len(site.asked) == 3

    def test_settings_reach_the_client(self, tmp_path: Path, site: BatchSite) -> None:
        source, out = tmp_path / "in.txt", tmp_path / "out.jsonl"
        source.write_text("one")

        site.answer = lambda _: Hang()
        env = {"GPROCHAT_URL": site.url}
        result = run(source, "--out", out, "--timeout-first-chunk=0.05", **env)
        assert result.exit_code == 1
        assert "Timeouts.first_chunk" in written(out)[0]["error"]["message"]
        assert "RequestTimeoutError" in result.stderr

    def test_the_embedded_site_is_the_same_each_time(self, tmp_path: Path, backend: str) -> None:
        source, out = tmp_path / "in.txt", tmp_path / "out.jsonl"
        source.write_text("one")
        for words in (r"answered +1\n", r"answered before +1\n"):
            result = run(source, "--out", out, backend, "--password=p")
            assert result.exit_code == 0
            assert "the embedded site replies" in result.stderr
            assert re.search(words, result.stderr)
        assert written(out)[0]["text"].endswith("You said: one")
        assert run(source, "--out", out, backend, "--quiet").output == ""

    def test_only_the_first_bad_lines_are_reported(self, tmp_path: Path, site: BatchSite) -> None:
        source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        source.write_text('{"prompt": "secret\n' * 12)
        result = run(source, "--out", out, "--url", site.url)
        assert "line 10: invalid JSON" in result.stderr
        assert "line 11" not in result.stderr
        assert "2 more bad lines" in result.stderr
        assert "secret" not in result.output
        assert len(written(out)) == 12


class TestBounds:
    def test_a_site_that_never_answers_is_given_up(self, tmp_path: Path) -> None:
        source, out = tmp_path / "in.txt", tmp_path / "out.jsonl"
        source.write_text("\n".join("abcdefg"))
        arguments = (source, "--out", out, "--url=http://127.0.0.1:9", "--give-up-after=2")
        for more in ((), ("--quiet",)):
            result = run(*arguments, *more)
            assert result.exit_code == 1
            assert "iven up: 2 prompts in a row got no reply" in " ".join(result.stderr.split())
            assert out.read_bytes() == b""
        result = run(*arguments[:-1], "--give-up-after=0", "--quiet")
        assert len(written(out)) == 7

    def test_a_limit_asks_so_many_more(self, tmp_path: Path, site: BatchSite) -> None:
        source, out = tmp_path / "in.txt", tmp_path / "out.jsonl"
        source.write_text("one\ntwo\nthree\nfail")
        arguments = (source, "--out", out, "--url", site.url, "--limit=2", "--quiet")
        assert [run(*arguments).exit_code for _ in range(2)] == [0, 1]
        assert len(site.asked) == 4

    def test_lines_of_another_site_are_reported(self, tmp_path: Path, site: BatchSite) -> None:
        source, out = tmp_path / "in.txt", tmp_path / "out.jsonl"
        source.write_text("one\ntwo")
        run(source, "--out", out, "--url", site.url)
        moved = site.url.replace("127.0.0.1", "localhost")
        result = run(source, "--out", out, "--url", moved, "--any-site")
        assert (result.exit_code, len(site.asked)) == (0, 2)
        assert site.url not in result.stderr
        result = run(source, "--out", out, "--url", moved, "--limit=1")
        assert f"has 2 lines of {site.url}; their prompts are asked again" in result.stderr
        assert "to count them as done, give --any-site" in result.stderr
        with out.open("ab") as file:
            file.write(out.read_bytes().replace(site.url.encode(), b"http://third.test"))
        result = run(source, "--out", out, "--url", moved)
        assert "lines of http://127.0.0.1" in result.stderr
        assert " and 1 more; " in result.stderr

    @pytest.mark.parametrize("adaptive", [True, False])
    def test_adaptivity_reaches_the_batch(
        self, tmp_path: Path, site: BatchSite, monkeypatch: pytest.MonkeyPatch, adaptive: bool
    ) -> None:
        given: list[Any] = []

        async def note(*_: Any, **settings: Any) -> None:
            given.append(settings["adaptive"])

        monkeypatch.setattr(_batch_run, "run_batch", note)
        source = tmp_path / "in.txt"
        source.write_text("one")
        option = "--adaptive" if adaptive else "--no-adaptive"
        run(source, "--out", tmp_path / "out", "--url", site.url, option)
        assert given == [adaptive]


class TestErrors:
    @pytest.mark.parametrize(
        "options",
        [
            ["--max-at-once=0"],
            ["--max-per-second=0"],
            ["--grace=-1"],
            ["--sync-every=nan"],
            ["--format=csv"],
            ["--url=chat.example.org"],
            ["--proxy=http://127.0.0.1:9", "--url="],
            ["--timeout-total=-1"],
        ],
    )
    def test_of_a_setting(self, tmp_path: Path, options: list[str]) -> None:
        source = tmp_path / "in.txt"
        source.write_text("one")
        result = run(source, "--out", tmp_path / "out", "--url=http://127.0.0.1:9", *options)
        assert (result.stdout, result.exit_code) == ("", 2)
        assert list(tmp_path.iterdir()) == [source]

    def test_of_the_files(self, tmp_path: Path) -> None:
        source = tmp_path / "in.txt"
        source.write_text("one")
        url = "--url=http://127.0.0.1:9"
        assert run(source, url).exit_code == 2
        assert run(tmp_path / "none", "--out", tmp_path / "out", url).exit_code == 2
        result = run(source, "--out", source, url)
        assert result.exit_code == 2
        assert result.stderr == "gprochat: the output is the input itself; name another file\n"
        result = run(source, "--out", tmp_path / "none" / "out", url)
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1
        assert result.stderr == f"gprochat: {tmp_path}/none/out: No such file or directory\n"

    def test_without_stdin(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", None)
        with pytest.raises(click.UsageError, match="no stdin"):
            _batch._opened("-")

    @pytest.mark.parametrize("missing", ["rich.console", "gprochat_anyio.cli._progress"])
    def test_says_what_to_install(
        self, tmp_path: Path, site: BatchSite, monkeypatch: pytest.MonkeyPatch, missing: str
    ) -> None:
        monkeypatch.delitem(sys.modules, "gprochat_anyio.cli._progress")
        monkeypatch.delattr("gprochat_anyio.cli._progress")
        monkeypatch.setitem(sys.modules, missing, None)
        source, out = tmp_path / "in.txt", tmp_path / "out"
        source.write_text("one")
        arguments = (source, "--out", out, "--url", site.url)
        result = run(*arguments)
        assert result.exit_code == 1
        assert ("needs rich; pip install" in result.stderr) == (missing == "rich.console")
        assert run(*arguments, "--quiet").exit_code == 0


class TestCtrlC:
    @pytest.fixture(autouse=True)
    def _keep_handler(self) -> Iterator[None]:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    def test_all_signals_may_be_ignored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def watch() -> None:
            with monkeypatch.context() as patch:
                patch.setattr(signal, "getsignal", lambda _: signal.SIG_IGN)
                await CtrlC(lambda: None).watch()

        anyio.run(watch)

    def test_restores_the_handler(self, tmp_path: Path, site: BatchSite, backend: str) -> None:
        def handler(*_: object) -> None:
            pass

        signal.signal(signal.SIGINT, handler)
        source = tmp_path / "in.txt"
        source.write_text("one")
        run(source, "--out", tmp_path / "out", "--url", site.url, backend)
        assert signal.getsignal(signal.SIGINT) is handler

    @pytest.mark.parametrize("ignored", [False, True])
    def test_ends_with_130_unless_it_is_ignored(
        self, tmp_path: Path, site: BatchSite, backend: str, ignored: bool
    ) -> None:
        def interrupting(request: Request) -> Script:
            os.kill(os.getpid(), signal.SIGINT)
            return echo(request) if ignored else Hang()

        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        site.answer = interrupting
        source = tmp_path / "in.txt"
        source.write_text("one")
        arguments = (source, "--out", tmp_path / "out", "--url", site.url, backend, "--grace=0")
        result = run(*arguments)
        assert result.exit_code == (0 if ignored else 130)
        assert ("stopping: open replies have 0 s" in result.stderr) != ignored

    def test_a_third_one_ends_the_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Ended(BaseException):
            pass

        def end(status: int) -> None:
            raise Ended(status)

        async def press() -> None:
            said: list[str] = []
            ctrl_c = CtrlC(lambda: said.append("stopping"))
            ctrl_c.press()
            assert ctrl_c.stop.is_set()
            ctrl_c.press()
            assert ctrl_c.scope.cancel_called
            assert said == ["stopping"]
            ctrl_c.press()

        monkeypatch.setattr(os, "_exit", end)
        with pytest.raises(Ended, match="130"):
            anyio.run(press)


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
