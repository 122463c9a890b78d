"""The log of chats and prompts: no turn is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from support.model_servers import openai, stream
from support.raw_site import HEAD, Exchange, RawSite, failing, in_turn, raw_site, replying

from gprochat_anyio.cli import _commands
from gprochat_anyio.cli._database import StoreError, store_path
from gprochat_anyio.cli._main import gprochat
from gprochat_anyio.cli._output import Output, PipeClosedError
from gprochat_anyio.cli._store import Store


def run(*arguments: str, lines: str = "", **env: str) -> Result:
    return CliRunner().invoke(gprochat, arguments, input=lines, env=env)


def chat(*arguments: str, lines: str = "", **env: str) -> Result:
    return run("chat", *arguments, lines=lines, **env)


def logged(*arguments: str) -> list[dict[str, Any]]:
    lines = run("logs", "--json", "-n0", *arguments).stdout.splitlines()
    return [json.loads(line) for line in lines]


def places(*arguments: str) -> list[tuple[int, str, str | None]]:
    return [(turn["chat"], turn["question"], turn["dropped"]) for turn in logged(*arguments)]


@pytest.fixture
def site() -> Iterator[RawSite]:
    with raw_site(replying("reply")) as site:
        yield site


class TestChat:
    def test_marks_what_is_undone_or_retried(self, site: RawSite) -> None:
        chat("--url", site.url, lines="one\n/retry\ntwo\n/undo\nthree\n")
        assert places() == [
            (1, "one", "retried"),
            (1, "one", None),
            (1, "two", "undone"),
            (1, "three", None),
        ]
        assert len(site.bodies[-1]["messages"]) == 3

    def test_goes_on_without_what_was_dropped(self, site: RawSite) -> None:
        chat("--url", site.url, lines="one\ntwo\n/undo\n")
        chat("--continue", lines="three\n/undo\n")
        assert places() == [(1, "one", None), (1, "two", "undone"), (1, "three", "undone")]
        assert len(site.bodies[-1]["messages"]) == 3

    def test_a_retry_that_fails_keeps_the_reply_before(self) -> None:
        answers = iter([replying("first"), failing(500, "no"), replying("last")])
        with raw_site(in_turn(answers)) as site:
            chat("--url", site.url, lines="one\n/retry\ntwo\n")
        assert places() == [(1, "one", None), (1, "two", None)]
        assert site.bodies[-1]["messages"][1]["parts"][0]["text"] == "first"

    @pytest.mark.parametrize("command", ["/load {file}", "/site other", "/model echo"])
    def test_begins_anew_and_loses_nothing(
        self, site: RawSite, tmp_path: Path, command: str
    ) -> None:
        file, config = tmp_path / "saved.json", tmp_path / "config.toml"
        config.write_text(f"[sites.other]\nurl = '{site.url}'\n")
        lines = f"/save {file}\none\ntwo\n{command.format(file=file)}\nthree\n"
        chat("--url", site.url, lines=lines, GPROCHAT_CONFIG=str(config))
        assert places() == [(1, "one", None), (1, "two", None), (2, "three", None)]
        carried = [t["question"] for t in logged("--chat=2") if t["earlier"]]
        assert carried == ([] if "load" in command else ["one", "two"])

    def test_keeps_to_its_chat_where_nothing_changes(self, site: RawSite, tmp_path: Path) -> None:
        config = tmp_path / "config.toml"
        config.write_text(f"default = 'a'\n[sites.a]\nurl = '{site.url}'\n")
        chat(lines="one\n/site a\n/site\n/model\ntwo\n", GPROCHAT_CONFIG=str(config))
        assert places() == [(1, "one", None), (1, "two", None)]

    def test_new(self, site: RawSite) -> None:
        arguments = ("--url", site.url, "--system=Be brief.")
        result = chat(*arguments, lines="one\n/new\n/retry\ntwo\n/exit\nthree\n")
        assert "this is a new chat\ngprochat: there is no question to ask again" in result.stderr
        assert places() == [(1, "one", None), (2, "two", None)]
        assert [turn["system"] for turn in logged()] == ["Be brief."] * 2
        assert len(site.bodies[-1]["messages"]) == 1

    def test_new_without_a_log(self, site: RawSite) -> None:
        chat("--url", site.url, "--no-log", lines="one\n/new\ntwo\n")
        assert not store_path().exists()
        assert len(site.bodies[-1]["messages"]) == 1

    def test_goes_on_with_other_sites_and_without_a_log(self, site: RawSite) -> None:
        chat("--url", site.url, lines="one\n")
        chat("--continue", "--url", site.url, "--no-log", lines="two\n")
        assert places() == [(1, "one", None)]
        assert len(site.bodies[-1]["messages"]) == 3

    def test_goes_on_by_its_id(self, site: RawSite) -> None:
        chat("--url", site.url, lines="one\n/new\ntwo\n")
        result = chat("--continue", "1", lines="three\n")
        assert (result.stdout, result.stderr) == ("reply\n", "")
        assert places() == [(1, "one", None), (2, "two", None), (1, "three", None)]
        assert len(site.bodies[-1]["messages"]) == 3

    def test_goes_on_without_a_log_that_cannot_be_read(
        self, site: RawSite, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise StoreError("damaged")

        monkeypatch.setattr(Store, "questions", fail)
        result = chat("--url", site.url, lines="one\n")
        assert (result.stdout, result.exit_code) == ("reply\n", 0)
        assert result.stderr == "gprochat: earlier questions cannot be recalled: damaged\n"
        assert places() == [(1, "one", None)], "writing may still work"

    @pytest.mark.skipif(os.name == "nt", reason="needs a link")
    def test_goes_on_from_a_log_that_cannot_be_written(self, site: RawSite) -> None:
        chat("--url", site.url, lines="one\n")
        # In place of a file that SQLite makes.
        store_path().with_name("chats.db-shm").symlink_to(store_path().parent / "none" / "such")
        result = chat("--continue", "--no-log", lines="two\n")
        assert (result.stdout, result.stderr) == ("reply\n", "")
        assert len(site.bodies[-1]["messages"]) == 3

    @pytest.mark.parametrize("there", [False, True])
    def test_there_is_no_such_chat(self, site: RawSite, there: bool) -> None:
        if there:
            chat("--url", site.url, lines="one\n")
        result = chat("--continue", "7", "--no-log", lines="two\n")
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == "gprochat: there is no chat 7; `gprochat logs` shows the IDs\n"


def counting(exchange: Exchange) -> None:
    name, messages = exchange.body["model"], exchange.body["messages"]
    exchange.send(stream(openai(f"{name} {len(messages)}", "stop")))


class TestModel:
    @pytest.fixture
    def server(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RawSite]:
        config = tmp_path / "config.toml"
        monkeypatch.setenv("GPROCHAT_CONFIG", str(config))
        monkeypatch.delenv("GEMINI_API_KEY", raising=False)
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        with raw_site(counting) as server:
            config.write_text(
                f"[models.fast]\nkind = 'openai'\nname = 'small'\nbase_url = '{server.url}'\n"
            )
            yield server

    def test_another_one_replies(self, server: RawSite) -> None:
        lines = "one\n/model\n/model fast\ntwo\n/model big/one\nthree\n"
        result = chat("--model=echo", lines=lines)
        assert result.stdout == "one\nsmall 3\nbig/one 5\n"
        assert result.stderr.splitlines() == [
            "asking echo; /model takes fast, offline, echo, gemini, openai/NAME",
            "asking openai/small",
            "asking openai/big/one",
        ]

    def test_a_chat_goes_on_with_the_other_one(self, server: RawSite) -> None:
        chat("-m", "fast", lines="/model big/one\none\n")
        assert logged()[-1]["site"] == "fast/big/one"
        assert chat("--continue", lines="two\n").stdout == "big/one 3\n"

    def test_another_of_an_api_that_is_not_configured(self, server: RawSite) -> None:
        arguments = ("--model=openai", "--model-name=a", f"--base-url={server.url}")
        assert chat(*arguments, lines="/model b\none\n").stdout == "b 1\n"

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("nonsense", "there is no model 'nonsense'; /model takes fast, offline, "),
            ("gemini", "set GEMINI_API_KEY"),
            ("openai/m", "set OPENAI_API_KEY"),
            ("openai", "there is no model 'openai'; /model takes fast, "),
        ],
    )
    def test_that_is_unknown(self, server: RawSite, name: str, said: str) -> None:
        result = chat("--model=echo", lines=f"/model {name}\none\n")
        assert result.stdout == "one\n"
        assert said in result.stderr


class TestEditAndCopy:
    def test_copy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        taken: list[str] = []
        monkeypatch.setattr(_commands, "copy", lambda text, _: taken.append(text))
        answers = iter([replying("```\na\n```\n```\nb\nc\n```\n"), replying("no code")])
        with raw_site(in_turn(answers)) as site:
            result = chat("--url", site.url, lines="/copy\none\ntwo\n/copy\n")
        assert taken == ["b\nc\n"]
        assert result.stderr == (
            "gprochat: there is no code block in this chat yet\ncopied 2 lines\n"
        )

    def test_copy_takes_the_text_as_it_is_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        taken: list[str] = []
        monkeypatch.setattr(_commands, "copy", lambda text, _: taken.append(text))
        with raw_site(replying("```\nls\x1b[201~\r\n\tx\n```")) as site:
            chat("--url", site.url, lines="one\n/copy\n")
        assert taken == ["ls\\x1b[201~\n\tx\n"], "no key sequence for where it is pasted"

    def test_copy_without_a_clipboard(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        with raw_site(replying("```\na\n```")) as site:
            result = chat("--url", site.url, lines="one\n/copy\n")
        assert result.stderr.startswith("gprochat: there is no clipboard here: install ")

    def test_edit_needs_a_terminal(self) -> None:
        assert chat("--model=echo", lines="/edit\n").stderr == "gprochat: /edit needs a terminal\n"

    def test_what_the_editor_saves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given: list[tuple[str, str]] = []

        def edit(text: str, *, extension: str) -> str | None:
            given.append((text, extension))
            return None

        monkeypatch.setattr(click, "edit", edit)
        assert (_commands._edited("begun"), given) == ("", [("begun", ".md")])


class TestAsk:
    def test_is_logged(self, site: RawSite) -> None:
        assert run("ask", "--url", site.url, "--system=Be brief.", "Hi").exit_code == 0
        (turn,) = logged()
        assert (turn["chat"], turn["question"], turn["reply"]) == (1, "Hi", "reply")
        assert (turn["url"], turn["system"], turn["complete"]) == (site.url, "Be brief.", True)

    def test_may_go_on_as_a_chat(self, site: RawSite) -> None:
        run("ask", "--url", site.url, "Hi")
        assert "there is no chat to continue" in chat("--continue", "--no-log").stderr
        assert chat("--continue", "1", lines="two\n").stdout == "reply\n"
        assert places() == [(1, "Hi", None), (1, "two", None)]

    def test_is_logged_as_far_as_it_came(self) -> None:
        def cut(exchange: Exchange) -> None:
            exchange.send(HEAD)
            exchange.text("half")

        with raw_site(cut) as site:
            assert run("ask", "--url", site.url, "Hi").exit_code == 9
        (turn,) = logged()
        assert (turn["reply"], turn["complete"]) == ("half", False)

    def test_is_logged_without_a_reader(
        self, site: RawSite, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise PipeClosedError

        with monkeypatch.context() as patch:
            patch.setattr(Output, "write", fail)
            assert run("ask", "--url", site.url, "Hi").exit_code == 0
        assert logged()[0]["complete"] is False

    def test_without_a_reply_is_not(self) -> None:
        with raw_site(failing(500, "no")) as site:
            run("ask", "--url", site.url, "Hi")
        assert not store_path().exists()

    def test_may_be_switched_off(self, site: RawSite, tmp_path: Path) -> None:
        config = tmp_path / "config.toml"
        config.write_text("log = false")
        run("ask", "--url", site.url, "Hi", "--no-log")
        run("ask", "--url", site.url, "Hi", GPROCHAT_CONFIG=str(config))
        assert len(site.bodies) == 2
        assert not store_path().exists()

    def test_that_cannot_be_logged_is_reported(
        self, site: RawSite, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise StoreError("disk full")

        monkeypatch.setattr(Store, "save", fail)
        result = run("ask", "--url", site.url, "Hi")
        assert (result.stdout, result.exit_code) == ("reply\n", 0)
        assert result.stderr == "gprochat: this reply is not in the log: disk full\n"
