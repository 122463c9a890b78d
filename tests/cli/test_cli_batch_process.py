"""`gprochat batch` as a process: Ctrl-C, pipes, a terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread
from support.batch_site import BatchSite, batch_site_in_thread
from support.commands import ended, read_until, terminal
from support.raw_site import BOUND, environment, running

from gprochat_anyio.testing import Request, Say, Script

BACKENDS = ["--backend=asyncio", "--backend=trio"]

both_loops = pytest.mark.parametrize("backend", BACKENDS)
pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="POSIX signals and terminals"),
    pytest.mark.slow,
]


class Holding:
    """A site that replies immediately, except to prompts that begin with "held"."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self._threads = anyio.CapacityLimiter(100)

    def __call__(self, request: Request) -> Script:
        held = [self.hold] * request.prompt.startswith("held")
        return *held, Say(f"re: {request.prompt}")

    async def hold(self) -> None:
        await to_thread.run_sync(self.go_on.wait, BOUND, limiter=self._threads)


@pytest.fixture
def site() -> Iterator[BatchSite]:
    holding = Holding()
    with batch_site_in_thread(holding) as site:
        try:
            yield site
        finally:
            holding.go_on.set()


def let_go(site: BatchSite) -> None:
    assert isinstance(site.answer, Holding)
    site.answer.go_on.set()


def replies(out: Path) -> set[str]:
    whole = out.read_bytes()
    assert whole.endswith(b"\n")
    return {json.loads(line)["text"] for line in whole.splitlines()}


def prompts(tmp_path: Path, *texts: str) -> Path:
    source = tmp_path / "in.txt"
    source.write_text("\n".join(texts))
    return source


@both_loops
class TestCtrlC:
    def test_lets_open_replies_end(self, tmp_path: Path, site: BatchSite, backend: str) -> None:
        out = tmp_path / "out"
        source = prompts(tmp_path, "one", "held 1", "held 2", *"abc")
        arguments = ("batch", str(source), "--out", str(out), "--url", site.url, backend)
        with running(*arguments, "--max-at-once=2") as process:
            site.wait_for(3)
            process.send_signal(signal.SIGINT)
            said = read_until(process.stderr, b"\n")
            assert b"stopping: open replies have 10 s; Ctrl-C again ends them" in said
            let_go(site)
            status, stdout, err = ended(process)
        assert (status, stdout) == (130, b"")
        assert replies(out) >= {"re: one", "re: held 1", "re: held 2"}
        assert "re: c" not in replies(out)
        assert b"not asked" in err

    def test_ends_replies_after_the_grace(
        self, tmp_path: Path, site: BatchSite, backend: str
    ) -> None:
        out = tmp_path / "out"
        source = prompts(tmp_path, "one", "held")
        arguments = ("batch", str(source), "--out", str(out), "--url", site.url, backend)
        with running(*arguments, "--max-at-once=1", "--grace=0.1", "--quiet") as process:
            site.wait_for(2)  # so the first reply has ended
            process.send_signal(signal.SIGINT)
            assert ended(process) == (130, b"", b"")
        assert replies(out) == {"re: one"}
        let_go(site)
        with running(*arguments, "--quiet") as process:
            assert ended(process) == (0, b"", b"")
        assert replies(out) == {"re: one", "re: held"}
        assert site.counts == {"one": 1, "held": 2}

    def test_twice_ends_at_once(self, tmp_path: Path, site: BatchSite, backend: str) -> None:
        out = tmp_path / "out"
        source = prompts(tmp_path, "one", "held")
        arguments = ("batch", str(source), "--out", str(out), "--url", site.url, backend)
        with running(*arguments, "--max-at-once=1", "--grace=1000") as process:
            site.wait_for(2)  # so the first reply has ended
            process.send_signal(signal.SIGINT)
            read_until(process.stderr, b"ends them")
            process.send_signal(signal.SIGINT)
            status, _, err = ended(process)
        assert status == 130
        assert b"Traceback" not in err
        assert re.search(rb"answered +1", err)
        assert replies(out) == {"re: one"}

    def test_while_stdin_gives_nothing(self, tmp_path: Path, site: BatchSite, backend: str) -> None:
        out = tmp_path / "out"
        arguments = ("batch", "-", "--out", str(out), "--url", site.url, backend, "--quiet")
        with running(*arguments, stdin=subprocess.PIPE) as process:
            assert process.stdin
            process.stdin.write(b"one\ntw")
            process.stdin.flush()
            site.wait_for(1)
            process.send_signal(signal.SIGINT)
            assert process.wait(BOUND) == 130
        assert site.asked == ["one"]
        assert replies(out) == {"re: one"}

    def test_is_ignored_if_the_caller_ignores_it(
        self, tmp_path: Path, site: BatchSite, backend: str
    ) -> None:
        out = tmp_path / "out"
        ignored = "s.signal(s.SIGINT, s.SIG_IGN)"  # as nohup and `&` in a script have it
        arguments = ("batch", str(prompts(tmp_path, "held")), "--out", str(out), backend)
        with running(*arguments, "--url", site.url, "--quiet", setup=ignored) as process:
            site.wait_for(1)
            process.send_signal(signal.SIGINT)
            let_go(site)
            assert ended(process) == (0, b"", b"")


@both_loops
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
class TestSignalsOfSchedulersAndTerminals:
    def test_let_open_replies_end(
        self, tmp_path: Path, site: BatchSite, backend: str, number: signal.Signals
    ) -> None:
        out = tmp_path / "out"
        source = prompts(tmp_path, "one", "held", *"abc")
        arguments = ("batch", str(source), "--out", str(out), "--url", site.url, backend)
        with running(*arguments, "--max-at-once=1") as process:
            site.wait_for(2)
            process.send_signal(number)
            read_until(process.stderr, b"stopping: open replies have 10 s")
            let_go(site)
            status, _, err = ended(process)
        assert status == 128 + number
        assert {"re: one", "re: held"} <= replies(out)
        assert "re: c" not in replies(out)
        assert b"Traceback" not in err

    def test_are_ignored_if_the_caller_ignores_them(
        self, tmp_path: Path, site: BatchSite, backend: str, number: signal.Signals
    ) -> None:
        out = tmp_path / "out"
        ignored = f"s.signal({int(number)}, s.SIG_IGN)"  # as nohup has it for SIGHUP
        arguments = ("batch", str(prompts(tmp_path, "held")), "--out", str(out), backend)
        with running(*arguments, "--url", site.url, "--quiet", setup=ignored) as process:
            site.wait_for(1)
            process.send_signal(number)
            let_go(site)
            assert ended(process) == (0, b"", b"")


@both_loops
def test_a_closed_terminal_lets_open_replies_end(
    tmp_path: Path, site: BatchSite, backend: str
) -> None:
    out = tmp_path / "out"
    source = prompts(tmp_path, "one", "held", *"abc")
    arguments = ("batch", str(source), "--out", str(out), "--url", site.url, backend)
    with terminal() as (person, command):
        env = environment(TERM="xterm")
        with running(*arguments, "--max-at-once=1", stderr=command, env=env) as process:
            read_until(person, b"1 of 5 done")
            with open(os.devnull, "rb") as nothing:  # noqa: PTH123
                os.dup2(nothing.fileno(), person)  # hangs up
            process.send_signal(signal.SIGHUP)
            site.wait_for(2)
            let_go(site)
            assert process.wait(BOUND) == 128 + signal.SIGHUP
    assert {"re: one", "re: held"} <= replies(out)


def test_two_runs_on_one_output_are_refused(tmp_path: Path, site: BatchSite) -> None:
    out = tmp_path / "out"
    arguments = ("batch", str(prompts(tmp_path, "held")), "--out", str(out), "--url", site.url)
    with running(*arguments, "--quiet") as first:
        site.wait_for(1)
        with running(*arguments) as second:
            status, _, err = ended(second)
        assert status == 2
        assert b"another run is writing" in err
        assert err.count(b"\n") == 1
        let_go(site)
        assert ended(first) == (0, b"", b"")
    assert replies(out) == {"re: held"}


def test_lines_if_stderr_is_not_a_terminal(tmp_path: Path, site: BatchSite) -> None:
    out = tmp_path / "out"
    arguments = ("batch", str(prompts(tmp_path, "held")), "--out", str(out), "--url", site.url)
    setup = "import gprochat_anyio.cli._progress as p; p.LINES_EVERY = 0.05"
    with running(*arguments, setup=setup) as process:
        seen = read_until(process.stderr, b"in flight")
        assert b"gprochat: 0 of 1 done, 0 failed, " in seen + read_until(process.stderr, b"1 done")
        let_go(site)
        status, _, err = ended(process)
    assert status == 0
    assert b"\x1b" not in seen + err
    assert b"to the end" in err


def test_a_bar_in_a_terminal(tmp_path: Path, site: BatchSite) -> None:
    out = tmp_path / "out"
    source = prompts(tmp_path, "secret", "held secret")
    arguments = ("batch", str(source), "--out", str(out), "--url", site.url)
    with terminal() as (person, command):
        env = environment(TERM="xterm")
        with running(*arguments, stderr=command, env=env) as process:
            seen = read_until(person, b"1 of 2 done")
            process.send_signal(signal.SIGINT)
            seen += read_until(person, b"ends them")
            let_go(site)
            seen += read_until(person, b"to the end")
            assert process.wait(BOUND) == 0, "all was done before it had to stop"
    assert "━".encode() in seen
    assert b"\x1b[" in seen
    assert b"secret" not in seen


def test_lines_in_a_dumb_terminal(tmp_path: Path, site: BatchSite) -> None:
    out = tmp_path / "out"
    arguments = ("batch", str(prompts(tmp_path, "one")), "--out", str(out), "--url", site.url)
    with terminal() as (person, command):
        env = environment(TERM="dumb")
        with running(*arguments, stderr=command, env=env) as process:
            seen = read_until(person, b"to the end")
            assert process.wait(BOUND) == 0
    assert b"\x1b" not in seen


def test_a_closed_stderr_does_not_matter(tmp_path: Path, site: BatchSite) -> None:
    out = tmp_path / "out"
    arguments = ("batch", str(prompts(tmp_path, "held")), "--out", str(out), "--url", site.url)
    with running(*arguments) as process:
        assert process.stderr
        site.wait_for(1)
        process.stderr.close()
        let_go(site)
        assert process.wait(BOUND) == 0
    assert replies(out) == {"re: held"}


def test_a_slow_stdin_is_asked_line_by_line(tmp_path: Path, site: BatchSite) -> None:
    out = tmp_path / "out"
    arguments: Any = ("batch", "-", "--out", str(out), "--url", site.url, "--quiet")
    with running(*arguments, stdin=subprocess.PIPE) as process:
        assert process.stdin
        for count, text in enumerate([b"one\n", b"two\n", b"three"], 1):
            process.stdin.write(text)
            process.stdin.flush()
            if text.endswith(b"\n"):
                site.wait_for(count)
        process.stdin.close()
        assert process.wait(BOUND) == 0
    assert replies(out) == {"re: one", "re: two", "re: three"}
