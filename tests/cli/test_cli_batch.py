"""`gprochat batch` in this process: settings, formats, exit statuses, messages."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import click
import pytest
from click.testing import CliRunner, Result
from support.batch_site import BatchSite, batch_site_in_thread, echo

from gprochat_anyio.cli import _batch, _batch_run
from gprochat_anyio.cli._ctrl_c import CtrlC
from gprochat_anyio.cli._main import gprochat
from gprochat_anyio.testing import Hang, Refuse, Request, Script

pytestmark = pytest.mark.usefixtures("clean_environment")


BACKENDS = ["asyncio", "trio"]


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
