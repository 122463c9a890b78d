"""`gprochat chat` at a terminal: typing, Ctrl-C at every moment, the screen."""

from __future__ import annotations

import os
import re
import select
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import click
import pytest
from prompt_toolkit import PromptSession
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from support.model_servers import HEAD as EVENTS
from support.model_servers import chunk, event, openai
from support.raw_site import (
    BOUND,
    END,
    HEAD,
    INTERRUPTIBLE,
    Exchange,
    environment,
    failing,
    raw_site,
    replying,
)

from gprochat_anyio.cli import _answering, _speaker
from gprochat_anyio.cli._archive import Archive, ArchivedTurn
from gprochat_anyio.cli._database import store_path
from gprochat_anyio.cli._editor import CtrlCLeftError, Editor
from gprochat_anyio.cli._main import gprochat
from gprochat_anyio.cli._output import Output
from gprochat_anyio.cli._views import PlainView

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a POSIX terminal")

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


class TestTyping:
    def test_a_turn(self, chat: Chat) -> None:
        def does(person: Person) -> None:
            person.sees("/help shows the commands")
            person.enters("Hello")
            person.sees("a bold reply")
            person.sees(PROMPT)
            person.types(CTRL_D)

        with raw_site(replying("a **bo", "ld** reply")) as site:
            assert chat(does, "--url", site.url) == 0
        assert site.prompts == ["Hello"]

    def test_several_lines(self, chat: Chat) -> None:
        def does(person: Person) -> None:
            person.sees(PROMPT)
            person.types("one\\\rtwo" + ALT_ENTER + "three\r")
            person.sees("done")
            person.sees(PROMPT)
            person.types("\x1b[200~pasted\nlines\x1b[201~\r")
            person.sees("done")
            person.sees(PROMPT)
            person.types(UP + UP + UP + UP + "\r")  # through the two lines, to the one before
            person.sees("done")
            person.enters("/quit")

        with raw_site(replying("done")) as site:
            assert chat(does, "--url", site.url) == 0
        assert site.prompts[:2] == ["one\ntwo\nthree", "pasted\nlines"]

    def test_completion(self, chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        config = tmp_path / "config.toml"
        monkeypatch.setenv("GPROCHAT_CONFIG", str(config))

        def does(person: Person) -> None:
            person.sees(PROMPT)
            person.types("/si\twor\t\r")
            person.sees("asking work-1")
            person.enters("/lo\tsav\t")
            person.sees("cannot read saved: ")
            person.enters("/undo w\t")
            person.sees("/undo takes no argument")
            person.enters("/quit")

        config.write_text("[sites.work-1]\nurl = 'http://127.0.0.1:9'\n")
        (tmp_path / "saved").mkdir()
        monkeypatch.chdir(tmp_path)
        assert chat(does, "--model=echo") == 0

    def test_searching_the_history(self, chat: Chat) -> None:
        def does(person: Person) -> None:
            for line in ("find me", "not me"):
                person.enters(line)
                person.sees("done")
            person.sees(PROMPT)
            person.types(CTRL_R + "find")
            person.sees("find me")
            person.types(CTRL_C)  # ends only the search, as does a signal of another process
            person.types(CTRL_R + "not")
            person.sees("not me")
            interrupt()
            person.types(CTRL_C)
            person.sees("Ctrl-C again leaves")
            person.types(CTRL_R + "find")
            person.sees("find me")
            person.types("\r")
            person.types("\r")
            person.sees("done")
            person.enters("/quit")

        with raw_site(replying("done")) as site:
            assert chat(does, "--url", site.url) == 0
        assert site.prompts == ["find me", "not me", "find me"]

    def test_history_of_earlier_chats(self, chat: Chat) -> None:
        with raw_site(replying("done")) as site:

            def first(person: Person) -> None:
                person.enters("remember me")
                person.sees("done")
                person.enters("/quit")

            def second(person: Person) -> None:
                person.sees("> remember me")
                person.sees("done")
                person.sees(PROMPT)
                person.types(UP + "\r")
                person.sees("done")
                person.enters("/quit")

            assert chat(first, "--url", site.url) == 0
            assert chat(second, "--continue") == 0
        assert site.prompts == ["remember me", "remember me"]
        assert [len(body["messages"]) for body in site.bodies] == [1, 3]

    def test_what_is_typed_meanwhile_is_for_the_next_prompt(self, chat: Chat) -> None:
        held = threading.Event()

        def answer(exchange: Exchange) -> None:
            exchange.send(HEAD)
            exchange.text("first ")
            assert held.wait(BOUND)
            exchange.text("rest")
            exchange.send(END)

        def does(person: Person) -> None:
            person.enters("Hello")
            person.sees("first")
            person.types("early\r")
            held.set()
            assert "early" not in person.sees("rest")
            person.sees("early")
            person.sees("rest")
            person.enters("/quit")

        with raw_site(answer) as site:
            assert chat(does, "--url", site.url) == 0
        assert site.prompts == ["Hello", "early"]

    def test_the_prompt_names_the_sites(
        self, chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = tmp_path / "config.toml"
        monkeypatch.setenv("GPROCHAT_CONFIG", str(config))

        def does(person: Person) -> None:
            person.sees("a+b>")
            person.types("Hello\r")
            person.sees("a\n")
            person.sees("reply\n\nb\n")
            person.sees("reply")
            person.sees("a+b>")
            person.types(CTRL_D)

        with raw_site(replying("reply")) as site:
            config.write_text(f"[sites.a]\nurl = '{site.url}'\n[sites.b]\nurl = '{site.url}'\n")
            assert chat(does, "--site=a", "--site=b") == 0

    def test_a_model_with_no_site(self, chat: Chat) -> None:
        left = threading.Event()

        def answer(exchange: Exchange) -> None:
            exchange.send(EVENTS + chunk(event(openai("half a **bold** reply"))))
            exchange.until_left()
            left.set()

        def does(person: Person) -> None:
            person.sees("openai/m>")
            person.types("Hello\r")
            person.sees("half a bold reply")
            interrupt()
            person.sees("gprochat: stopped")
            assert left.wait(BOUND)
            person.enters("/site")
            person.sees("asking openai/m;")
            person.enters("/quit")

        with raw_site(answer) as server:
            assert chat(does, "--model=openai", "--model-name=m", "--base-url", server.url) == 0

    def test_plain_text_is_as_it_is(self, chat: Chat) -> None:
        def does(person: Person) -> None:
            person.enters("Hello")
            person.sees("a **bold**\\x1b[2J reply")
            person.enters("/quit")

        with raw_site(replying("a **bold**\x1b[2J reply")) as site:
            assert chat(does, "--plain", "--url", site.url) == 0

    def test_an_error_keeps_the_chat(self, chat: Chat) -> None:
        def does(person: Person) -> None:
            person.enters("Hello")
            person.sees("gprochat: the site refused the signature")
            person.enters("/quit")

        with raw_site(failing(401, "Invalid signature.")) as site:
            assert chat(does, "--url", site.url) == 0


class TestWhileAReplyComes:
    def test_ctrl_d_leaves_after_it(self, chat: Chat) -> None:
        held = threading.Event()

        def answer(exchange: Exchange) -> None:
            exchange.send(HEAD)
            exchange.text("first ")
            assert held.wait(BOUND)
            exchange.text("rest")
            exchange.send(END)

        def does(person: Person) -> None:
            person.enters("Hello")
            person.sees("first")
            person.types(CTRL_D)
            held.set()
            person.sees("rest")
            person.sees("to continue this chat: gprochat chat --continue 1")

        with raw_site(answer) as site:
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


class TestEditor:
    @pytest.mark.parametrize(
        ("editor", "seen"),
        [
            ("sed -i s/begun/ended/", "> ended"),
            ("truncate -s 0", "gprochat: the editor saved no question"),
            ("/no/such/editor", "set EDITOR to the editor to use"),
            ("vi 'unbalanced", "cannot start the editor: No closing quotation; set EDITOR"),
            ("cp binary", "gprochat: the editor saved no UTF-8 text"),
        ],
    )
    def test_writes_the_question(
        self, chat: Chat, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, editor: str, seen: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("binary").write_bytes(b"\xff")
        monkeypatch.setenv("VISUAL", editor)

        def does(person: Person) -> None:
            person.enters("/edit begun")
            person.sees(seen)
            person.enters("/exit")

        with raw_site(replying("done")) as site:
            assert chat(does, "--url", site.url) == 0
        assert site.prompts == (["ended"] if "ended" in seen else [])

    def test_says_that_its_file_is_empty(self, chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VISUAL", "true")

        def does(person: Person) -> None:
            person.enters("/edit")
            person.sees("the editor saved no question; nothing was asked")
            person.enters("/exit")

        assert chat(does, "--model=echo") == 0


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
