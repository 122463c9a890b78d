"""A user at a terminal, and chats in this process that the user leads."""

from __future__ import annotations

import os
import re
import select
import signal
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
import pytest
from prompt_toolkit.application import create_app_session

from gprochat_anyio.cli._main import gprochat

from .raw_site import BOUND

CTRL_C, CTRL_D, CTRL_R, ALT_ENTER, UP = "\x03", "\x04", "\x12", "\x1b\r", "\x1b[A"
_DRIVING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[>=]|\r")
PROMPT = "<prompt>"


def _plain(seen: str) -> str:
    """Return the visible text. Bracketed paste mode starts with a prompt."""
    return _DRIVING.sub("", seen.replace("\x1b[?2004h", PROMPT))


class Person:
    """A user at a terminal, who reads the screen and types."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._seen = ""
        self.all = ""

    def sees(self, text: str) -> str:
        """Wait until the text is on the screen, after the text of the last wait."""
        while text not in (plain := _plain(self._seen)):
            ready, _, _ = select.select([self._terminal], [], [], BOUND / 2)
            assert ready, (text, self._seen)
            piece = os.read(self._terminal, 65536).decode(errors="replace")
            assert piece, plain
            self._seen += piece
            self.all += piece
        before, _, after = plain.partition(text)
        self._seen = after
        return before

    def watches_until(self, ended: threading.Event) -> None:
        """Read on, so that a full terminal does not block the chat."""
        for _ in range(int(BOUND / 0.05)):
            if ended.is_set():
                return
            if select.select([self._terminal], [], [], 0.05)[0]:
                os.read(self._terminal, 65536)
        raise AssertionError("the chat goes on")

    def types(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def enters(self, line: str) -> None:
        self.sees(PROMPT)
        self.types(f"{line}\r")

    def resizes(self, columns: int, lines: int) -> None:
        import fcntl  # noqa: PLC0415 - not on Windows
        import termios  # noqa: PLC0415

        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)


@contextmanager
def terminal() -> Iterator[tuple[Person, int]]:
    import pty  # noqa: PLC0415 - not on Windows

    master, slave = pty.openpty()
    person = Person(master)
    person.resizes(80, 24)
    try:
        yield person, slave
    finally:
        os.close(slave)
        os.close(master)


Chat = Callable[..., int]


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Chat:
    """Return a function that runs a chat with a user in a thread. Ctrl-C is a real signal."""
    monkeypatch.setenv("PROMPT_TOOLKIT_NO_CPR", "1")
    monkeypatch.setenv("TERM", "xterm")
    before = signal.getsignal(signal.SIGINT)

    def run(does: Callable[[Person], None], *arguments: str) -> int:
        failures: list[BaseException] = []
        status: object = None
        with terminal() as (person, slave):
            ended = threading.Event()

            def act() -> None:
                try:
                    does(person)
                    person.watches_until(ended)
                except BaseException as error:  # noqa: BLE001 - raised below
                    failures.append(error)
                    while not ended.wait(0.2):  # end the chat in any state
                        person.types(CTRL_D)
                        os.kill(os.getpid(), signal.SIGINT)

            with (
                open(os.dup(slave), encoding="utf-8") as stdin,  # noqa: PTH123
                open(os.dup(slave), "w", encoding="utf-8") as stdout,  # noqa: PTH123
                monkeypatch.context() as patch,
                create_app_session(),  # prompt_toolkit would keep its first terminal
            ):
                patch.setattr(sys, "stdin", stdin)
                patch.setattr(sys, "stdout", stdout)
                patch.setattr(sys, "stderr", stdout)
                thread = threading.Thread(target=act)
                thread.start()
                try:
                    status = gprochat.main(["chat", *arguments], standalone_mode=False)
                except click.ClickException as error:
                    failures.append(error)
                finally:
                    ended.set()
                    thread.join(BOUND)
        if failures:
            raise failures[0]
        assert signal.getsignal(signal.SIGINT) is before
        assert isinstance(status, int)
        return status

    return run


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
