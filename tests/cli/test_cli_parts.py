"""The pieces of the command that a whole run does not show."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from gprochat_anyio import GPROChatError
from gprochat_anyio.cli import _prompt, main
from gprochat_anyio.cli._exits import exit_status, say
from gprochat_anyio.cli._output import Output, PipeClosedError, visible, wrapped


class Ended(BaseException):
    """Stands for the end of the process."""


class TestMain:
    @pytest.fixture(autouse=True)
    def _keep_handler(self) -> Any:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    def run(self, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str | int | None:
        monkeypatch.setattr(sys, "argv", ["gprochat", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code

    def test_runs_the_command(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(monkeypatch, "--version") == 0
        assert capsys.readouterr().out.startswith("gprochat ")

    def test_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "gprochat_anyio.cli._main", raising=False)
        monkeypatch.setitem(sys.modules, "click", None)
        assert "pip install 'gprochat-anyio[cli]'" in str(self.run(monkeypatch))

    def test_blames_click_for_nothing_else(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "gprochat_anyio.cli._main", None)
        with pytest.raises(ModuleNotFoundError):
            main()

    @pytest.mark.parametrize("terminal", [True, False])
    def test_ctrl_c_ends_the_process(self, monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
        written: list[tuple[int, bytes]] = []

        def end(status: int) -> None:
            raise Ended(status)

        self.run(monkeypatch, "--version")
        with monkeypatch.context() as patch:
            patch.setattr(os, "_exit", end)
            patch.setattr(os, "isatty", lambda _: terminal)
            patch.setattr(os, "write", lambda *seen: written.append(seen))
            with pytest.raises(Ended, match="130"):
                signal.raise_signal(signal.SIGINT)
        assert written == ([(2, b"\n")] if terminal else [])

    def test_leaves_another_handler(self, monkeypatch: pytest.MonkeyPatch) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.run(monkeypatch, "--version")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


class TestOutput:
    def test_needs_a_stdout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdout", None)
        with pytest.raises(OSError, match="no stdout"):
            Output()

    def test_drops_what_nobody_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w", encoding="utf-8") as stream:  # noqa: PTH123 - a descriptor
            monkeypatch.setattr(sys, "stdout", stream)
            output = Output()
            with pytest.raises(PipeClosedError):
                output.write("text")
            # Now closing it can not fail.

    def test_tells_why_it_can_not_write(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def fail() -> None:
            raise OSError(errno.ENOSPC, "disk full")

        with (tmp_path / "out").open("wb") as file:
            stream = SimpleNamespace(
                isatty=file.isatty, fileno=file.fileno, buffer=file, flush=fail
            )
            monkeypatch.setattr(sys, "stdout", stream)
            with pytest.raises(OSError, match="can not write to stdout: disk full"):
                Output().write("text")

    def test_ends_a_line_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        monkeypatch.setattr(sys, "stdout", stream)
        output = Output()
        output.end_line()
        output.write("text")
        output.end_line()
        output.end_line()
        assert stream.buffer.getvalue() == b"text\n"

    def test_breaks_lines_between_words_in_a_terminal_alone(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        line = f"ok      TCP    {'words ' * 15}http://{'x' * 90}"
        assert wrapped(line, None) == line
        assert wrapped(line, io.StringIO()) == line
        screen = Terminal()
        monkeypatch.setattr(sys, "stderr", screen)
        say(line)
        assert screen.getvalue().splitlines() == [
            f"gprochat: ok TCP {'words ' * 9}words",
            "words words words words words",
            f"http://{'x' * 90}",
        ]
        first, *others = wrapped(line, Terminal(), indent=15).splitlines()
        assert first == f"ok      TCP    {'words ' * 10}words"[: len(first)]
        assert all(other.startswith(" " * 15) for other in others)

    def test_keeps_control_characters_from_a_terminal(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Terminal(io.StringIO):
            encoding = "ascii"

            def isatty(self) -> bool:
                return True

        screen = Terminal()
        monkeypatch.setattr(sys, "stdout", screen)
        Output().write("\x1b[31mп\r\n\t.")
        assert screen.getvalue() == "\\x1b[31m\\u043f\n\t."

    def test_every_control_character_becomes_visible(self) -> None:
        every = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)]))
        assert "".join(c for c in visible(every) if not c.isprintable()) == "\t\n"


class TestPrompt:
    def test_is_the_argument_at_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Keyboard(io.StringIO):
            def isatty(self) -> bool:
                return True

        for stdin in (Keyboard(), None):
            monkeypatch.setattr(sys, "stdin", stdin)
            assert _prompt.read_prompt("Hi") == "Hi"
            with pytest.raises(click.UsageError, match="no prompt"):
                _prompt.read_prompt(None)

    def test_tells_that_it_waits_for_stdin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        told = threading.Event()

        class Stdin(io.RawIOBase):
            def readable(self) -> bool:
                return True

            def readinto(self, _: Any) -> int:
                assert told.wait(20)
                return 0

        monkeypatch.setattr(_prompt, "PATIENCE", 0)
        monkeypatch.setattr(_prompt, "say", lambda _: told.set())
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Stdin())))
        assert _prompt.read_prompt("Hi") == "Hi"


def test_an_unknown_failure_has_a_status() -> None:
    assert exit_status(GPROChatError("new")) == 1


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("two\nlines \x1b[2J")
    assert capsys.readouterr().err == "gprochat: two lines \\x1b[2J\n"
