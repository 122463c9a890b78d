"""`gprochat chat` at a terminal: the screen while a reply comes, and terminals that change."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.raw_site import (
    BOUND,
    END,
    HEAD,
    INTERRUPTIBLE,
    Exchange,
    Held,
    environment,
    raw_site,
    replying,
)
from support.terminal import CTRL_C, CTRL_D, PROMPT, Chat, Person, interrupt, terminal

from gprochat_anyio.cli import _answering, _speaker
from gprochat_anyio.cli._archive import Archive, ArchivedTurn
from gprochat_anyio.cli._database import store_path
from gprochat_anyio.cli._output import Output
from gprochat_anyio.cli._views import PlainView

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a POSIX terminal")


class TestWhileAReplyComes:
    def test_ctrl_d_leaves_after_it(self, chat: Chat) -> None:
        held = Held()

        def does(person: Person) -> None:
            person.enters("Hello")
            person.sees("first")
            person.types(CTRL_D)
            held.go_on.set()
            person.sees("rest")
            person.sees("to continue this chat: gprochat chat --continue 1")

        with raw_site(held) as site:
            assert chat(does, "--url", site.url) == 0

    def test_the_time_of_waiting_is_shown(
        self, chat: Chat, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_answering, "_TICK", 0.02)
        monkeypatch.setattr(_speaker.Answer, "elapsed", 41.9)
        held = threading.Event()

        def answer(exchange: Exchange) -> None:
            assert held.wait(BOUND)
            exchange.send(HEAD)
            exchange.text("first")
            exchange.until_left()

        def does(person: Person) -> None:
            person.enters("Hello")
            person.sees("… 42 s")
            held.set()
            person.sees("first")
            interrupt()
            person.sees("gprochat: stopped")
            person.enters("/exit")

        with raw_site(answer) as site:
            assert chat(does, "--url", site.url) == 0

    def test_plain_text_has_no_time_of_waiting(
        self, chat: Chat, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waited = threading.Event()

        def wait(_: PlainView, seconds: float) -> None:
            real(_, seconds)
            waited.set()

        def answer(exchange: Exchange) -> None:
            assert waited.wait(BOUND)
            replying("first")(exchange)

        def does(person: Person) -> None:
            person.enters("Hello")
            assert "…" not in person.sees("first")
            person.enters("/exit")

        real = PlainView.wait
        monkeypatch.setattr(_answering, "_TICK", 0.02)
        monkeypatch.setattr(PlainView, "wait", wait)
        with raw_site(answer) as site:
            assert chat(does, "--plain", "--url", site.url) == 0

    def test_an_interrupted_retry_keeps_the_reply_before(self, chat: Chat) -> None:
        asked: list[str] = []

        def answer(exchange: Exchange) -> None:
            asked.append(exchange.prompt)
            if len(asked) == 2:
                exchange.send(HEAD)
                exchange.text("half")
                exchange.until_left()
                return
            replying("whole")(exchange)

        def does(person: Person) -> None:
            person.enters("Hello")
            person.sees("whole")
            person.enters("/retry")
            person.sees("half")
            interrupt()
            person.sees("gprochat: stopped; the earlier reply stays")
            person.enters("next")
            person.sees("whole")
            person.enters("/exit")

        with raw_site(answer) as site:
            assert chat(does, "--url", site.url) == 0
        assert asked == ["Hello", "Hello", "next"]
        texts = [message["parts"][0]["text"] for message in site.bodies[2]["messages"]]
        assert texts == ["Hello", "whole", "next"]
        with closing(Archive(store_path())) as archive:
            turns = [e.turn for e in archive.turns(10) if isinstance(e, ArchivedTurn)]
        assert [(turn.reply, turn.complete, turn.dropped) for turn in turns] == [
            ("whole", True, None),
            ("half", False, "undone"),
            ("whole", True, None),
        ]


def test_a_terminal_that_goes_away(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(5, "cannot write to stdout: Input/output error")

    def does(person: Person) -> None:
        person.sees(PROMPT)
        monkeypatch.setattr(Output, "draw", fail)
        person.types("Hello\r")

    with raw_site(replying("done")) as site:
        assert chat(does, "--url", site.url) == 1


@contextmanager
def process(*arguments: str) -> Iterator[tuple[Person, subprocess.Popen[bytes]]]:
    """Run the command in a controlling terminal, which sends Ctrl-C itself."""
    setup = (
        f"{INTERRUPTIBLE}; import fcntl, os, termios; os.setsid();"
        "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\nfrom gprochat_anyio.cli import main; main()"
    )
    env = environment(
        PROMPT_TOOLKIT_NO_CPR="1", TERM="xterm", GPROCHAT_DATA=os.environ["GPROCHAT_DATA"]
    )
    with terminal() as (person, slave):
        with subprocess.Popen(  # noqa: S603 - our own
            [sys.executable, "-W", "error", "-c", setup, "chat", *arguments],
            env=env,
            stdin=slave,
            stdout=slave,
            stderr=slave,
        ) as running:
            guard = threading.Timer(BOUND, running.kill)
            guard.start()
            try:
                yield person, running
            finally:
                guard.cancel()
                running.kill()


def numbered(exchange: Exchange) -> None:
    """Send a long reply, and leave it open."""
    exchange.send(HEAD)
    exchange.text("```\n")
    for number in range(60):
        exchange.text(f"line {number}\n")
    if "whole" in exchange.prompt:
        exchange.text("```\n\nThe end.")
        exchange.send(END)
    else:
        exchange.until_left()


class TestProcess:
    @pytest.mark.slow
    def test_ctrl_c_stops_the_reply_and_leaves(self, tmp_path: Path) -> None:
        with raw_site(numbered) as site, process("--url", site.url) as (person, running):
            person.enters("Hello")
            person.sees("line 59")
            person.types(CTRL_C)
            person.sees("gprochat: stopped")
            person.sees("Ctrl-C again leaves")
            person.types(CTRL_C)
            assert running.wait(BOUND) == 130
            assert "Traceback" not in person.all

    @pytest.mark.slow
    def test_a_long_reply_in_a_terminal_that_is_resized(self) -> None:
        with raw_site(numbered) as site, process("--url", site.url) as (person, running):
            person.enters("Hello")
            person.sees("line 59")
            person.resizes(20, 10)
            person.types(CTRL_C)
            person.sees("gprochat: stopped")
            person.enters("whole")
            person.sees("The end.")
            person.sees(PROMPT)
            person.types(CTRL_D)
            assert running.wait(BOUND) == 0
            assert "Traceback" not in person.all
