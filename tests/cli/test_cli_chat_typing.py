"""`gprochat chat` at a terminal: typing, completion, the history, the editor."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from support.model_servers import HEAD as EVENTS
from support.model_servers import chunk, event, openai
from support.raw_site import BOUND, Exchange, Held, failing, raw_site, replying
from support.terminal import ALT_ENTER, CTRL_C, CTRL_D, CTRL_R, PROMPT, UP, Chat, Person, interrupt

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a POSIX terminal")


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
        held = Held()

        def does(person: Person) -> None:
            person.enters("Hello")
            person.sees("first")
            person.types("early\r")
            held.go_on.set()
            assert "early" not in person.sees("rest")
            person.sees("early")
            person.sees("rest")
            person.enters("/quit")

        with raw_site(held) as site:
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
