"""`gprochat chat` at a terminal: Ctrl-C at every moment."""

from __future__ import annotations

import os
import signal
import threading
from functools import partial
from typing import Any

import anyio
import pytest
from prompt_toolkit import PromptSession
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from support.raw_site import BOUND, HEAD, Exchange, raw_site, replying
from support.terminal import CTRL_C, PROMPT, Chat, Person, interrupt

from gprochat_anyio.cli import _answering
from gprochat_anyio.cli._database import store_path
from gprochat_anyio.cli._editor import CtrlCLeftError, Editor
from gprochat_anyio.cli._output import Output

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a POSIX terminal")


class Held:
    """A site that sends some text or none, and then nothing until the client leaves."""

    def __init__(self, first: str) -> None:
        self.asked = threading.Event()
        self._first = first

    def __call__(self, exchange: Exchange) -> None:
        self.asked.set()
        if "short" in exchange.prompt:
            replying("short reply")(exchange)
            return
        if self._first:
            exchange.send(HEAD)
            exchange.text(self._first)
        exchange.until_left()


class TestCtrlC:
    def test_stops_a_reply_and_keeps_it(self, chat: Chat) -> None:
        def does(person: Person) -> None:
            person.enters("Hello")
            person.sees("half a reply")
            interrupt()
            person.sees("gprochat: stopped")
            person.enters("short")
            person.sees("short reply")
            person.enters("/quit")

        with raw_site(Held("half a reply")) as site:
            assert chat(does, "--url", site.url) == 0
        texts = [message["parts"][0]["text"] for message in site.bodies[1]["messages"]]
        assert texts == ["Hello", "half a reply", "short"]

    def test_stops_waiting(self, chat: Chat) -> None:
        held = Held("")

        def does(person: Person) -> None:
            person.enters("Hello")
            person.sees("…")
            assert held.asked.wait(BOUND)
            interrupt()
            person.sees("gprochat: stopped")
            person.enters("short")
            person.sees("short reply")
            person.enters("/quit")

        with raw_site(held) as site:
            assert chat(does, "--url", site.url) == 0
        assert len(site.bodies[1]["messages"]) == 1

    def test_twice_leaves(self, chat: Chat) -> None:
        def does(person: Person) -> None:
            person.enters("Hello")
            person.sees("half a reply")
            interrupt()
            person.sees("Ctrl-C again leaves")
            person.types(CTRL_C)

        with raw_site(Held("half a reply")) as site:
            assert chat(does, "--url", site.url) == 130
        assert store_path().exists()

    @pytest.mark.slow
    def test_clears_the_line_and_then_leaves(self, chat: Chat) -> None:
        def does(person: Person) -> None:
            person.sees(PROMPT)
            person.types("not to be sent")
            person.sees("sent")
            person.types(CTRL_C)
            person.sees("Ctrl-C again leaves")
            person.types("other")
            person.sees("other")
            person.types("\x7f" * 5)
            person.types(CTRL_C)
            person.sees("Ctrl-C again leaves")
            person.types(CTRL_C)

        with raw_site(replying("done")) as site:
            assert chat(does, "--url", site.url) == 130
        assert site.prompts == []

    def test_of_a_dumb_terminal(self, chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERM", "dumb")

        def does(person: Person) -> None:
            person.sees("> ")
            person.types("/ex\t")
            person.sees("/ext")  # the last key echoed: the command now reads the keys
            person.types(CTRL_C)
            person.sees("gprochat: Ctrl-C again leaves")
            person.sees("> ")
            person.types("Hello\r")
            person.sees("a **bold** reply")
            person.sees("> ")
            person.types("/quit\r")

        with raw_site(replying("a **bold** reply")) as site:
            assert chat(does, "--url", site.url) == 0
        assert site.prompts == ["Hello"]

    def test_of_a_dumb_terminal_twice_leaves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def interrupted(*_: object, **__: object) -> str:
            raise KeyboardInterrupt

        monkeypatch.setattr(PromptSession, "prompt_async", interrupted)
        with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
            editor = Editor([], {}, [], [])
            with pytest.raises(CtrlCLeftError):
                anyio.run(partial(editor.line, "> ", pressed=False))

    def test_of_another_process_counts_too(self, chat: Chat) -> None:
        def does(person: Person) -> None:
            person.sees(PROMPT)
            interrupt()
            person.sees("Ctrl-C again leaves")
            interrupt()

        assert chat(does, "--url=http://127.0.0.1:9") == 130

    def test_between_two_prompts_counts(self, chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
        shown = Output.write

        def write(output: Output, text: str) -> None:
            shown(output, text)
            if text == "\n":
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        def does(person: Person) -> None:
            person.enters("Hello")
            person.sees("Ctrl-C again leaves")
            person.types(CTRL_C)

        monkeypatch.setattr(Output, "write", write)
        with raw_site(replying("done")) as site:
            assert chat(does, "--url", site.url) == 130

    def test_while_the_terminal_hangs(self, chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
        drawn, real = Output.draw, os._exit
        entered, go_on = threading.Event(), threading.Event()
        ended: list[int] = []

        def draw(output: Output, text: str) -> None:
            drawn(output, text)
            if "half" in text:
                entered.set()
                assert go_on.wait(BOUND)

        def end(status: int) -> None:
            ended.append(status)
            go_on.set()

        def does(person: Person) -> None:
            person.enters("Hello")
            assert entered.wait(BOUND)
            for _ in range(3):
                before = pressed.count
                interrupt()
                assert pressed.wait_beyond(before)

        class Pressed:
            def __init__(self) -> None:
                self.count = 0
                self._news = threading.Condition()

            def one(self) -> None:
                with self._news:
                    self.count += 1
                    self._news.notify_all()

            def wait_beyond(self, count: int) -> bool:
                with self._news:
                    return self._news.wait_for(lambda: self.count > count, BOUND)

        pressed = Pressed()
        press = _answering.Interrupts._press

        def pressing(interrupts: Any) -> None:
            press(interrupts)
            pressed.one()

        monkeypatch.setattr(_answering.Interrupts, "_press", pressing)
        monkeypatch.setattr(Output, "draw", draw)
        monkeypatch.setattr(os, "_exit", end)
        with raw_site(Held("half a reply")) as site:
            assert chat(does, "--url", site.url) == 130
        monkeypatch.setattr(os, "_exit", real)
        assert ended == [130]
