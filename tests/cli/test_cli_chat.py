"""`gprochat chat` from a pipe: turns, commands, several sites, the log."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.raw_site import (
    BOUND,
    END,
    HEAD,
    Exchange,
    RawSite,
    failing,
    in_turn,
    raw_site,
    replying,
)

from gprochat_anyio.cli import _saved_files
from gprochat_anyio.cli._commands import COMMANDS
from gprochat_anyio.cli._database import StoreError, store_path
from gprochat_anyio.cli._editor import Lines
from gprochat_anyio.cli._main import gprochat
from gprochat_anyio.cli._output import Output, PipeClosedError
from gprochat_anyio.cli._store import Store


def chat(*arguments: str, lines: str | bytes = "", **env: str) -> Result:
    return CliRunner().invoke(gprochat, ["chat", *arguments], input=lines, env=env)


def counted(exchange: Exchange) -> None:
    """Reply with the number of messages in the request."""
    messages = exchange.body["messages"]
    exchange.send(HEAD)
    exchange.text(f"{len(messages)}: ", exchange.prompt)
    exchange.send(END)


@pytest.fixture
def site() -> Iterator[RawSite]:
    with raw_site(counted) as site:
        yield site


def first_texts(site: RawSite) -> list[str]:
    return [body["messages"][0]["parts"][0]["text"] for body in site.bodies]


@pytest.mark.parametrize(
    "command", ["batch", "chat", "check", "completion", "help", "logs", "models"]
)
def test_help_fits_a_screen(command: str) -> None:
    result = CliRunner().invoke(gprochat, [command, "--help"])
    lines = result.stdout.splitlines()
    assert len(lines) <= 23, "one line is the shell's"
    assert max(map(len, lines)) <= 79


class TestTurns:
    def test_have_a_history(self, site: RawSite) -> None:
        result = chat("--url", site.url, lines="one\n\n  two\\\nlines\nthree\\")
        assert result.stdout == "1: one\n3: two\nlines\n5: three\n"
        assert (result.stderr, result.exit_code) == ("", 0)

    def test_are_text(self, site: RawSite) -> None:
        result = chat("--url", site.url, lines=b"a\0b\nc\xff\n")
        assert "the line contains NUL, which is not text; nothing was asked\n" in result.stderr
        assert first_texts(site) == ["c\ufffd"]

    def test_go_to_the_embedded_site_by_default(self) -> None:
        result = chat(lines="Hi\n")
        assert result.stdout.endswith("You said: Hi\n")
        assert result.stderr.endswith("or --model: the embedded site replies, offline\n")
        assert result.stderr.count("\n") == 1

    def test_that_fail_leave_no_trace(self) -> None:
        answers = iter([counted, failing(500, "no"), counted])
        with raw_site(in_turn(answers)) as site:
            result = chat("--url", site.url, lines="one\ntwo\nthree\n")
        assert result.stdout == "1: one\n3: three\n"
        assert "no" in result.stderr
        assert result.exit_code == 0

    def test_end_with_the_status_of_the_last(self) -> None:
        with raw_site(failing(401, "Invalid signature.")) as site:
            assert chat("--url", site.url, lines="one\n\n").exit_code == 5

    def test_have_instructions(self, site: RawSite) -> None:
        chat("--url", site.url, "--system", "Be brief.", lines="one\n/system off\n two\n")
        assert first_texts(site) == ["Be brief.\n\none", "one"]

    def test_of_several_sites_are_apart(self, site: RawSite) -> None:
        with raw_site(replying("other")) as other:
            result = chat("--url", site.url, "--url", other.url, lines="one\ntwo\n")
        expected = f"{site.url}:\n%s\n{other.url}:\nother\n"
        assert result.stdout == expected % "1: one" + expected % "3: two"
        assert len(other.bodies[1]["messages"]) == 3
        assert other.bodies[1]["messages"][1]["parts"][0]["text"] == "other"

    def test_of_several_sites_run_at_the_same_time(self) -> None:
        met = threading.Barrier(2)

        def meet(exchange: Exchange) -> None:
            met.wait(BOUND)
            counted(exchange)

        with raw_site(meet) as one, raw_site(meet) as other:
            assert chat("--url", one.url, "--url", other.url, lines="Hi\n").exit_code == 0

    def test_may_have_no_stdin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", None)
        with pytest.raises(EOFError):
            Lines()._next()


class TestCommands:
    def run(self, site: RawSite, *lines: str) -> Result:
        result = chat("--url", site.url, lines="".join(f"{line}\n" for line in lines))
        assert result.exit_code == 0
        return result

    def test_retry(self, site: RawSite) -> None:
        result = self.run(site, "/retry", "one", "/retry", "two")
        assert result.stdout == "1: one\n1: one\n3: two\n"
        assert "no question to ask again yet" in result.stderr

    def test_retry_of_a_failed_turn(self) -> None:
        answers = iter([failing(500, "no"), counted])
        with raw_site(in_turn(answers)) as site:
            assert self.run(site, "one", "/retry").stdout == "1: one\n"

    def test_undo(self, site: RawSite) -> None:
        result = self.run(site, "one", "/undo", "/undo", "two")
        assert result.stdout == "1: one\n1: two\n"
        assert result.stderr == "undone: one\ngprochat: there is no turn to undo\n"

    def test_undo_and_retry_where_one_site_failed(self, site: RawSite) -> None:
        answers = iter([replying("b1"), failing(500, "no"), *[replying("b")] * 4])
        with raw_site(in_turn(answers)) as other:
            lines = "one\ntwo\n/undo\n/retry\nthree\n/retry\n"
            result = chat("--url", site.url, "--url", other.url, lines=lines)
        assert "undone: two\n" in result.stderr
        sent = [[m["parts"][0]["text"] for m in body["messages"]] for body in other.bodies]
        assert sent == [
            ["one"],
            ["one", "b1", "two"],
            ["one"],
            ["one", "b", "three"],
            ["one", "b", "three"],
        ]
        assert [len(body["messages"]) for body in site.bodies] == [1, 3, 1, 3, 3]

    def test_retry_asks_again_where_it_failed(self, site: RawSite) -> None:
        answers = iter([replying("b1"), failing(500, "no"), replying("b2")])
        with raw_site(in_turn(answers)) as other:
            chat("--url", site.url, "--url", other.url, lines="one\ntwo\n/retry\n")
        assert [len(body["messages"]) for body in other.bodies] == [1, 3, 3]
        assert [len(body["messages"]) for body in site.bodies] == [1, 3, 3]

    def test_save_and_load(self, site: RawSite, tmp_path: Path) -> None:
        path = tmp_path / "saved.json"
        result = self.run(
            site, "one", f"/save {path}", f"/save {path}", "/undo", f"/load {path}", "two"
        )
        assert result.stdout == "1: one\n3: two\n"
        assert result.stderr.count("saved to") == 2
        assert f"this is a new chat, with 1 turn from {path}" in result.stderr
        assert json.loads(path.read_text())["messages"][0]["parts"] == [{"text": "one"}]
        if os.name == "posix":
            assert path.stat().st_mode & 0o777 == 0o600
        again = self.run(site, f"/save {path}", f"/load {path}", f"/save {path}")
        assert "exists: give another name" in again.stderr
        assert again.stderr.count("saved to") == 1

    def test_save_and_load_of_several_sites(self, site: RawSite, tmp_path: Path) -> None:
        path = tmp_path / "saved.json"
        with raw_site(replying("other")) as other:
            arguments = ("--url", site.url, "--url", other.url)
            chat(*arguments, lines=f"one\n/save {path}\n")
            names = sorted(file.name for file in tmp_path.glob("saved*"))
            assert names == ["saved.1.json", "saved.2.json"]
            result = chat(*arguments, lines=f"/load {path}\ntwo\n")
            assert (
                f"this is a new chat, with 1 turn from {tmp_path / 'saved.1.json'}" in result.stderr
            )
            assert other.bodies[1]["messages"][1]["parts"][0]["text"] == "other"
            (tmp_path / "saved.2.json").unlink()
            result = chat(*arguments, lines=f"/load {path}\ntwo\n")
        assert f"cannot read {tmp_path / 'saved.2.json'}" in result.stderr
        assert result.stdout.startswith(f"{site.url}:\n1: two\n"), "nothing has changed"
        shutil.copy(tmp_path / "saved.1.json", path)
        chat("--url", site.url, "--url", site.url, lines=f"/load {path}\ntwo\n")
        assert [len(body["messages"]) for body in site.bodies[-2:]] == [3, 3]

    def test_invalid_files(self, site: RawSite, tmp_path: Path) -> None:
        other = tmp_path / "other.json"
        other.write_text('{"version": 1, "messages": [{"role": "user"}]}')
        result = self.run(
            site,
            f"/load {tmp_path / 'none.json'}",
            f"/load {other}",
            f"/save {tmp_path / 'none' / 'x'}",
            "/save",
            "/load",
        )
        lines = result.stderr.splitlines()
        assert [line.split(":")[1].split(str(tmp_path))[0] for line in lines] == [
            " cannot read ", " ", " cannot write ", " name a file",
            " name a file",
        ]  # fmt: skip
        assert "is not a conversation: " in lines[1]

    @pytest.mark.parametrize("command", ["/save", "/load"])
    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("~nobody_of_that_name/x", "there is no such home directory"),
            ("a\0b", "the line contains NUL, which is not text"),
        ],
    )
    def test_invalid_names_of_files(
        self, site: RawSite, command: str, name: str, said: str
    ) -> None:
        result = self.run(site, f"{command} {name}", "one")
        assert result.exit_code == 0
        assert said in result.stderr
        assert len(site.bodies) == 1, "the chat goes on"

    def test_loads_a_file_up_to_a_limit(
        self, site: RawSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limit = 1024 * 1024
        monkeypatch.setattr(_saved_files, "LOAD_LIMIT", limit)
        turn = [{"role": role, "parts": [{"text": "a"}]} for role in ("user", "model")]
        data = json.dumps(turn).encode()
        largest, larger = tmp_path / "largest", tmp_path / "larger"
        largest.write_bytes(data.ljust(limit))
        larger.write_bytes(data.ljust(limit + 1))
        result = self.run(site, f"/load {larger}", f"/load {largest}", "one")
        assert result.stderr.splitlines() == [
            f"gprochat: {larger} is larger than 1 MiB; load a shorter conversation",
            f"this is a new chat, with 1 turn from {largest}",
        ]
        assert len(site.bodies[0]["messages"]) == 3

    @pytest.mark.skipif(os.name == "nt", reason="POSIX devices")
    def test_a_device_is_not_loaded(self, site: RawSite) -> None:
        assert "/dev/null is not a file" in self.run(site, "/load /dev/null").stderr

    def test_system(self, site: RawSite) -> None:
        result = self.run(
            site, "/system", "/system Be brief.", "/system", "one", "/system off", "/system"
        )
        assert result.stderr.splitlines() == [
            "there are no instructions; /system TEXT sets them",
            "instructions set for each question",
            "Be brief.",
            "instructions removed",
            "there are no instructions; /system TEXT sets them",
        ]
        assert first_texts(site) == ["Be brief.\n\none"]

    def test_invalid_instructions(self, site: RawSite, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise ValueError("system must be text")

        name = "gprochat_anyio._conversation.conversation.Conversation.system"
        real = property(lambda _: None, lambda _, text: refuse() if text else None)
        monkeypatch.setattr(name, real)
        assert self.run(site, "/system x").stderr == "gprochat: system must be text\n"

    def test_help_names_all(self, site: RawSite) -> None:
        stderr = self.run(site, "/help").stderr
        for name in COMMANDS:
            assert f"{name} " in stderr
        assert len(stderr.splitlines()) <= 22
        assert max(map(len, stderr.splitlines())) < 80

    def test_quit(self, site: RawSite) -> None:
        assert self.run(site, "/quit", "one").stdout == ""

    def test_unknown_commands(self, site: RawSite) -> None:
        result = self.run(site, "/nonsense here", "/undo it", " /etc/passwd?")
        assert result.stderr == (
            "gprochat: there is no command /nonsense; /help lists them\n"
            "gprochat: /undo takes no argument\n"
        )
        assert result.stdout == "1: /etc/passwd?\n"

    def test_site(self, site: RawSite, tmp_path: Path) -> None:
        config = tmp_path / "config.toml"
        config.touch(0o600)
        with raw_site(counted) as other:
            config.write_text(
                f"default = 'a'\n[sites.a]\nurl = '{site.url}'\n"
                f"[sites.b]\nurl = '{other.url}'\npassword = 'of b'\n"
                "[sites.d]\nurl = 'nonsense'\n"
            )
            lines = "one\n/site\n/site b b\ntwo\n/site c\n/site d\n/site a b\nthree\n"
            result = chat(lines=lines, GPROCHAT_CONFIG=str(config))
        assert result.stdout == "1: one\n3: two\na:\n5: three\nb:\n5: three\n"
        said = result.stderr.splitlines()
        assert said[:2] == ["asking a; in the configuration: a, b, d", "asking b"]
        assert "has no site 'c', only a, b, d; add [sites.c]" in said[2]
        assert "url must be" in said[3]
        assert other.bodies[0]["pass"] == "of b"


class TestKeeping:
    def test_goes_on(self, site: RawSite) -> None:
        assert (
            "there is no chat to continue"
            in chat("--continue", "--url", site.url, lines="one\n").stderr
        )
        result = chat("--continue", lines="two\n")
        assert (result.stdout, result.stderr) == ("3: two\n", "")
        assert chat("--continue", lines="/undo\n/undo\n").exit_code == 0
        assert chat("--continue", lines="three\n").stdout == "1: three\n"

    def test_goes_on_with_other_sites(self, site: RawSite) -> None:
        chat("--url", site.url, "--system", "Be brief.", lines="one\n")
        arguments = ("--continue", "--url", site.url, "--url", site.url, "--system", "Be long.")
        chat(*arguments, lines="two\n")
        assert first_texts(site)[1:] == ["Be long.\n\none", "Be long.\n\none"]

    def test_goes_on_with_the_embedded_site(self) -> None:
        chat(lines="one\n")
        assert "You said: two" in chat("--continue", lines="two\n").stdout
        store = Store(store_path())
        store.save(store.last() * 2)
        store.close()
        assert chat("--continue", lines="three\n").stdout.count("You said: three") == 2

    def test_keeps_no_secret(self, site: RawSite) -> None:
        secrets = ["--secret-key=s3cret", "--password=s3cret", "--proxy="]
        assert chat("--url", site.url, *secrets[:2], lines="one\n").exit_code == 0
        files = list(store_path().parent.iterdir())
        assert files
        assert not any(b"s3cret" in file.read_bytes() for file in files)

    def test_may_be_switched_off(self, site: RawSite, tmp_path: Path) -> None:
        chat("--url", site.url, "--no-log", "--continue", lines="one\n")
        config = tmp_path / "config.toml"
        config.write_text("log = false")
        chat("--url", site.url, lines="one\n", GPROCHAT_CONFIG=str(config))
        assert not store_path().exists()

    def test_without_a_usable_log_is_reported(self, site: RawSite) -> None:
        store_path().parent.write_text("a file")
        result = chat("--url", site.url, lines="one\n")
        assert result.stdout == "1: one\n"
        assert "this chat is not logged: cannot use" in result.stderr

    def test_of_an_unreadable_log_is_reported(self, site: RawSite) -> None:
        chat("--url", site.url, lines="one\n")
        with closing(sqlite3.connect(store_path())) as db:
            db.execute("DROP TABLE turns")
        result = chat("--continue", "--url", site.url, lines="two\n")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "cannot read" in result.stderr

    def test_that_fails_is_reported_once(
        self, site: RawSite, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise StoreError("disk full")

        monkeypatch.setattr(Store, "save", fail)
        result = chat("--url", site.url, lines="one\ntwo\n")
        assert result.stdout == "1: one\n3: two\n"
        assert result.stderr == "gprochat: this chat is no longer logged: disk full\n"


class TestFailures:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--url=chat.example.org"], "url must be"),
            (["--url=http://x", "--proxy=gopher://x"], "proxy must be"),
            (["--url=http://x", "--timeout-idle=-1"], "idle"),
            (["--url=http://x", "--system= "], "system must be"),
            (["--site=x"], "no site 'x'"),
        ],
    )
    def test_of_a_setting(self, arguments: list[str], said: str) -> None:
        result = chat(*arguments, lines="Hi\n")
        assert result.exit_code == 2
        assert said in result.stderr

    @pytest.mark.parametrize(
        ("module", "said"),
        [
            ("prompt_toolkit", "chat needs prompt_toolkit; pip install 'gprochat-anyio[cli]'"),
            ("gprochat_anyio.site", "gprochat_anyio.site"),
        ],
    )
    def test_of_a_missing_extra(
        self, monkeypatch: pytest.MonkeyPatch, module: str, said: str
    ) -> None:
        for name in ("_editor", "_repl"):
            monkeypatch.delitem(sys.modules, f"gprochat_anyio.cli.{name}", raising=False)
        monkeypatch.setitem(sys.modules, module, None)
        result = chat(lines="Hi\n")
        assert result.exit_code == 1
        assert said in result.stderr

    @pytest.mark.parametrize(
        ("error", "status", "said"),
        [
            (PipeClosedError(), 0, ""),
            (OSError(28, "cannot write to stdout: disk full"), 1, "disk full"),
        ],
    )
    def test_of_stdout(
        self,
        site: RawSite,
        monkeypatch: pytest.MonkeyPatch,
        error: Exception,
        status: int,
        said: str,
    ) -> None:
        def fail(*_: Any) -> None:
            raise error

        monkeypatch.setattr(Output, "write", fail)
        result = chat("--url", site.url, lines="Hi\n")
        assert result.exit_code == status
        assert said in result.stderr
        assert result.stderr.count("\n") == bool(said)
