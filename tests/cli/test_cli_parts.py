"""Parts of the command that whole runs do not reach."""

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

import anyio
import click
import pytest
from support.leaks import needs_proc

from gprochat_anyio import GPROChatError
from gprochat_anyio.cli import _prompt, main
from gprochat_anyio.cli._answering import Interrupts
from gprochat_anyio.cli._exit_codes import exit_status, say
from gprochat_anyio.cli._output import Output, PipeClosedError, visible, wrapped


class Terminal(io.StringIO):
    """A terminal of 80 columns."""

    encoding = "ascii"

    def isatty(self) -> bool:
        return True


class Ended(BaseException):
    """Replacement for the end of the process."""


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

    def test_usage_errors_fit_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        screen = Terminal()
        monkeypatch.setattr(sys, "stderr", screen)
        assert self.run(monkeypatch, "ask", "-m", "openai", "--url", "http://x", "Hello") == 2
        assert screen.getvalue().splitlines() == [
            "Usage: gprochat ask [OPTIONS] [PROMPT]",
            "Try 'gprochat ask --help' for help.",
            "",
            "Error: --url is the address of a site, which --model does not ask: leave it out,",
            "or give the address of a model's API as --base-url.",
        ]

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


@needs_proc
def test_ctrl_c_in_another_thread_wakes_the_event_loop() -> None:
    """The kernel may choose any thread. Nothing else wakes the loop."""
    waiter = Path(f"/proc/self/task/{threading.get_native_id()}/wchan")

    def interrupt() -> None:
        for _ in range(100_000):  # some kernels do not tell
            if "poll" in waiter.read_text():
                break
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    async def main() -> None:
        pressed = anyio.Event()
        with (
            anyio.move_on_after(10) as timeout,
            Interrupts() as interrupts,
            interrupts.doing(pressed.set),
        ):
            thread = threading.Thread(target=interrupt)
            thread.start()
            await pressed.wait()
            thread.join()
        assert not timeout.cancel_called

    anyio.run(main)


class TestOutput:
    def test_needs_a_stdout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdout", None)
        with pytest.raises(OSError, match="no stdout"):
            Output()

    def test_drops_unread_text(self, monkeypatch: pytest.MonkeyPatch) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w", encoding="utf-8") as stream:  # noqa: PTH123 - a descriptor
            monkeypatch.setattr(sys, "stdout", stream)
            output = Output()
            with pytest.raises(PipeClosedError):
                output.write("text")
            # Closing it cannot fail any more.

    def test_says_why_it_cannot_write(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def fail() -> None:
            raise OSError(errno.ENOSPC, "disk full")

        with (tmp_path / "out").open("wb") as file:
            stream = SimpleNamespace(
                isatty=file.isatty, fileno=file.fileno, buffer=file, flush=fail
            )
            monkeypatch.setattr(sys, "stdout", stream)
            with pytest.raises(OSError, match="cannot write to stdout: disk full"):
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
        screen = Terminal()
        monkeypatch.setattr(sys, "stdout", screen)
        Output().write("\x1b[31mп\r\n\t.")
        assert screen.getvalue() == "\\x1b[31m\\u043f\n\t."

    def test_every_control_character_becomes_visible(self) -> None:
        every = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)]))
        assert "".join(c for c in visible(every) if not c.isprintable()) == "\t\n"

    @pytest.mark.parametrize("terminal", [True, False])
    def test_only_a_terminal_gets_the_controls_of_directions_escaped(
        self, monkeypatch: pytest.MonkeyPatch, terminal: bool
    ) -> None:
        codes = (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
        controls = [chr(code) for code in codes]
        # Letters of both directions, and joiners, which scripts and emoji need.
        text = "".join([*controls, "\u0634\u0644\u05d0\u05b8 \u0645\u06cc\u200c\u062e \u200d."])
        stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        monkeypatch.setattr(stream, "isatty", lambda: terminal)
        monkeypatch.setattr(sys, "stdout", stream)
        Output().write(text)
        seen = stream.buffer.getvalue().decode()
        if terminal:
            escapes = "".join(f"\\u{ord(character):04x}" for character in controls)
            assert seen == escapes + text[len(controls) :]
        else:
            assert seen == text


class TestPrompt:
    def test_is_the_argument_at_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Keyboard(io.StringIO):
            def isatty(self) -> bool:
                return True

        for stdin in (Keyboard(), None):
            monkeypatch.setattr(sys, "stdin", stdin)
            assert _prompt.read_prompt("Hi") == "Hi"
            with pytest.raises(click.UsageError, match="the prompt is empty"):
                _prompt.read_prompt(None)

    def test_may_be_typed(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        class Keyboard(io.TextIOWrapper):
            def isatty(self) -> bool:
                return True

        monkeypatch.setattr(sys, "stdin", Keyboard(io.BytesIO(b"typed\n")))
        assert _prompt.read_prompt("-") == "typed"
        assert "Ctrl-D at the start of a line ends it" in capsys.readouterr().err

    def test_is_stdin_once(self) -> None:
        with pytest.raises(click.UsageError, match="- is stdin, which can be read only once"):
            _prompt.read_prompt("-", ["-"])

    def test_may_be_a_stdin_that_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Broken(io.RawIOBase):
            def readable(self) -> bool:
                return True

            def readinto(self, _: Any) -> int:
                raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Broken())))
        with pytest.raises(click.UsageError, match="cannot read stdin: Input/output error"):
            _prompt.read_prompt("-")

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
