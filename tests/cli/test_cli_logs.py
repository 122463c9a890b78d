"""`gprochat logs`: searching, exporting and deleting."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gprochat_anyio.cli import _logs
from gprochat_anyio.cli._database import store_path
from gprochat_anyio.cli._main import gprochat
from gprochat_anyio.cli._output import Output, PipeClosedError
from gprochat_anyio.cli._store import RETRIED, UNDONE, Kept, LoggedTurn, Store

NOON = 1_700_000_000.0  # on 2023-11-14 or, in eastern time zones, the day after
ONE = LoggedTurn("Straße?", "1", "work", "https://w", NOON + 1, True, 0.1, 0.2)
TWO = LoggedTurn("two\n\nlines?", "2 \x1b[2J", None, "https://u", NOON + 2, False, dropped=RETRIED)
THREE = LoggedTurn("three?", "3", None, None, NOON + 3, dropped=UNDONE)
FOUR = LoggedTurn(
    "four?", "4", None, "http://api/v1", NOON + 4, model="openai/m", system="Be brief."
)
FIVE = LoggedTurn("five?", "5", None, None, NOON + 5)
LOADED = LoggedTurn("before?", "0")


@pytest.fixture
def store() -> Iterator[Store]:
    with closing(Store(store_path())) as store:
        yield store


@pytest.fixture
def logged(store: Store) -> Store:
    """Log two chats. The second continues a turn of the first, and a turn from a file."""
    store.save([Kept("work", "https://w", None, (ONE, TWO, THREE))])
    store.begin()
    turns = (LOADED, ONE._replace(earlier=True), FOUR, FIVE)
    store.save([Kept(None, "http://api/v1", None, turns)])
    return store


class Keyboard:
    """A stdin with a user at a terminal."""

    def isatty(self) -> bool:
        return True


def logs(*arguments: str, says: str = "") -> Result:
    return CliRunner().invoke(gprochat, ["logs", *arguments], input=says)


def chat(*arguments: str, lines: str) -> Result:
    return CliRunner().invoke(gprochat, ["chat", *arguments], input=lines)


def replies(*arguments: str) -> list[str]:
    return [json.loads(line)["reply"] for line in logs("--json", *arguments).stdout.splitlines()]


class TestShowing:
    def test_nothing(self) -> None:
        result = logs()
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr == "gprochat: nothing has been logged yet\n"
        assert not store_path().exists()

    def test_for_people(self, logged: Store) -> None:
        text = logs().stdout
        assert [line[16:] for line in text.splitlines() if line.startswith("2023-11-1")] == [
            "  chat 1  work",
            "  chat 1  https://u  (stopped)  (retried)",
            "  chat 1  embedded  (undone)",
            "  chat 2  openai/m",
            "  chat 2  embedded",
        ]
        assert "> two\n> \n> lines?\n2 \x1b[2J\n\n" in text

    def test_one_chat(self, logged: Store) -> None:
        text = logs("--chat=2").stdout
        assert text.startswith("from a file  chat 2  embedded\n> before?\n0\n\n")
        assert "  chat 2  work  (from an earlier chat)\n> Straße?\n1\n" in text
        assert replies("--chat=2") == ["0", "1", "4", "5"]
        assert replies("--chat=2", "-n1") == ["5"]

    @pytest.mark.parametrize("options", [["--chat"], ["--delete"], ["-q", "four", "--chat"]])
    @pytest.mark.parametrize("there", [False, True])
    def test_no_such_chat(self, options: list[str], there: bool, request: Any) -> None:
        if there:
            request.getfixturevalue("logged")
        result = logs(*options, "7")
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == "gprochat: there is no chat 7; `gprochat logs` shows the IDs\n"

    @pytest.mark.parametrize("value", ["seven", "-1", "²", "9" * 30])
    def test_what_is_not_an_id(self, value: str) -> None:
        result = logs("--chat", value)
        assert result.exit_code == 2
        assert "is not the ID of a chat; `gprochat logs` shows the IDs." in result.stderr

    def test_the_last_ones(self, logged: Store) -> None:
        assert replies("-n2") == ["4", "5"]
        assert len(replies("-n0")) == len(replies()) == 5
        assert len(replies("-n", "9" * 30)) == 5

    @pytest.mark.parametrize(
        ("text", "found"), [("STRASSE", ["1"]), ("LINES", ["2 \x1b[2J"]), ("4", ["4"]), ("%", [])]
    )
    def test_what_contains_a_text(self, logged: Store, text: str, found: list[str]) -> None:
        assert replies("-q", text) == found

    def test_what_contains_a_text_in_a_chat(self, logged: Store) -> None:
        assert replies("-q", "?", "--chat=2", "-n0") == ["0", "1", "4", "5"]
        result = logs("-q", "nowhere", "--chat=2")
        assert (result.exit_code, result.stderr) == (0, "gprochat: no turn contains this text\n")


class TestExporting:
    def test_json(self, logged: Store) -> None:
        turns = [json.loads(line) for line in logs("--json").stdout.splitlines()]
        places = [(1, 1, ONE), (1, 2, TWO), (1, 3, THREE), (2, 3, FOUR), (2, 4, FIVE)]
        assert turns == [
            {"chat": chat, "number": number, **turn._asdict()} for chat, number, turn in places
        ]

    def test_markdown(self, logged: Store) -> None:
        text = logs("--markdown").stdout
        assert [line for line in text.splitlines() if line.startswith("# ")] == [
            "# Chat 1", "# Chat 2"
        ]  # fmt: skip
        assert text.count("## 2023-11-1") == 5
        assert ", https://u, (stopped), (retried)\n\n> two\n>\n> lines?\n\n2 \x1b[2J\n\n" in text
        assert ", openai/m\n\nInstructions: Be brief.\n\n> four?\n\n4\n\n" in text

    def test_one_of_them(self) -> None:
        assert "give one" in logs("--json", "--markdown").stderr

    def test_the_place(self) -> None:
        assert logs("--path").stdout == f"{store_path()}\n"


class TestDeleting:
    def test_from_a_script(self, logged: Store) -> None:
        result = logs("--delete=1")
        assert (result.exit_code, result.stderr) == (0, "gprochat: deleted chat 1, with 3 turns\n")
        assert replies() == ["4", "5"]
        assert logs("--delete=1").exit_code == 2

    @pytest.mark.parametrize(("says", "left"), [("y\n", 2), ("n\n", 5), ("", 5)])
    def test_at_a_terminal(
        self, logged: Store, monkeypatch: pytest.MonkeyPatch, says: str, left: int
    ) -> None:
        monkeypatch.setattr(_logs, "sys", SimpleNamespace(stdin=Keyboard()))
        result = logs("--delete=1", says=says)
        assert "Delete chat 1, with 3 turns, which begins with 'Straße?'? [y/N]" in result.stderr
        assert result.exit_code == (0 if left == 2 else 1)
        assert len(replies()) == left

    @pytest.mark.parametrize("other", ["--chat=1", "-qtext"])
    def test_only_by_its_id(self, logged: Store, other: str) -> None:
        result = logs("--delete=1", other)
        assert result.exit_code == 2
        assert "leave --chat and -q out" in result.stderr
        assert len(replies()) == 5


class TestDamage:
    """Values that another program wrote into the second chat."""

    VALUES = (
        *("question = x'00ff'", "reply = CAST(x'ff41' AS TEXT)", "site = x''", "system = x'41'"),
        *("asked = 'soon'", "asked = -1", "asked = 1e300", "first_chunk = 9e999", "total = 'x'"),
        *("complete = 'no'", "earlier = 'no'", "number = 'x'", "number = 9223372036854775807"),
    )

    @staticmethod
    def alter(statement: str) -> None:
        with closing(sqlite3.connect(store_path())) as db, db:
            db.execute(statement)

    @staticmethod
    def message(column: str) -> str:
        return (
            f"gprochat: the log is damaged: chat 2 has an invalid value of `{column}`; correct it,"
            " or delete the chat: `gprochat logs --delete 2`\n"
        )

    @pytest.mark.parametrize("value", VALUES)
    def test_of_a_turn_hides_this_turn_alone(self, logged: Store, value: str) -> None:
        self.alter(f"UPDATE turns SET {value} WHERE question = 'five?'")  # noqa: S608
        said = self.message(value.partition(" ")[0])
        for options, found in (
            (["--json"], 4),
            (["--json", "--chat=2"], 3),
            ([], 4),
            (["--markdown"], 4),
        ):
            result = logs(*options)
            assert (result.exit_code, result.stderr) == (1, said), options
            places = [
                line
                for line in result.stdout.splitlines()
                if line.startswith(("{", "## ", "2023-11-1"))
            ]
            assert len(places) == found
        result = logs("--chat=1")
        assert (result.exit_code, result.stderr) == (0, "")

    def test_is_told_once_for_a_chat(self, logged: Store) -> None:
        self.alter("UPDATE turns SET reply = x'ff' WHERE conversation = 2")
        assert logs("--chat=2").stderr == self.message("reply")

    def test_of_what_is_searched(self, logged: Store) -> None:
        self.alter("UPDATE turns SET question = CAST('Five \xff?' AS BLOB) WHERE number = 3")
        assert logs("-q", "five").stderr == self.message("question")
        assert replies("-q", "STRASSE") == ["1"]

    def test_of_an_id(self, logged: Store) -> None:
        self.alter("UPDATE conversations SET chat = 'x' WHERE chat = 2")
        result = logs("--json")
        assert (result.exit_code, len(result.stdout.splitlines())) == (1, 3)
        assert "a chat has an invalid ID; correct it, or move the file away" in result.stderr

    @pytest.mark.parametrize("value", ["question = x'ff'", "number = 'x'"])
    def test_can_be_deleted(
        self, logged: Store, monkeypatch: pytest.MonkeyPatch, value: str
    ) -> None:
        self.alter(f"UPDATE turns SET {value} WHERE question = 'before?'")  # noqa: S608
        monkeypatch.setattr(_logs, "sys", SimpleNamespace(stdin=Keyboard()))
        result = logs("--delete=2", says="y\n")
        assert "Delete chat 2, with 4 turns? [y/N]" in result.stderr
        assert replies() == ["1", "2 \x1b[2J", "3"]

    @pytest.mark.parametrize("value", VALUES)
    def test_of_a_turn_keeps_its_chat_from_being_continued(self, logged: Store, value: str) -> None:
        self.alter(f"UPDATE turns SET {value} WHERE question = 'five?'")  # noqa: S608
        for options in (["--continue"], ["--continue=2"]):
            result = chat(*options, lines="six?\n")
            assert result.exit_code == 1
            assert result.stderr == self.message(value.partition(" ")[0])
        result = chat("-m", "echo", "--continue=1", lines="six?\n")
        assert (result.exit_code, result.stdout) == (0, "six?\n")

    @pytest.mark.parametrize("column", ["site", "url", "system", "model"])
    def test_of_a_conversation(self, logged: Store, column: str) -> None:
        self.alter(f"UPDATE conversations SET {column} = x'ff' WHERE chat = 2")  # noqa: S608
        assert chat("--continue", lines="six?\n").stderr == self.message(column)

    @pytest.mark.parametrize("column", ["question", "reply"])
    def test_a_blank_text(self, logged: Store, column: str) -> None:
        self.alter(f"UPDATE turns SET {column} = ' ' WHERE question = 'five?'")  # noqa: S608
        result = chat("--continue", lines="six?\n")
        assert result.exit_code == 1
        assert result.stderr == (
            "gprochat: chat 2 cannot be continued, because it has a blank text; `gprochat logs"
            " --chat 2` shows it\n"
        )
        self.alter("UPDATE turns SET dropped = 'undone' WHERE number = 3")
        assert chat("--continue", "-m", "echo", lines="six?\n").stdout == "six?\n"

    def test_of_a_null(self, logged: Store) -> None:
        """In a file that another program made anew."""
        self.alter("ALTER TABLE turns RENAME COLUMN reply TO text")
        self.alter("ALTER TABLE turns ADD COLUMN reply TEXT")
        result = logs("--chat=2")
        assert (result.exit_code, result.stderr) == (1, self.message("reply"))
        assert logs("-q", "five").stderr == self.message("reply")


class TestFailures:
    def test_of_reading(self) -> None:
        path: Path = store_path()
        path.parent.mkdir()
        path.write_bytes(b"no database" * 100)
        result = logs()
        assert result.exit_code == 1
        assert result.stderr.startswith(f"gprochat: cannot use {path}")

    @pytest.mark.parametrize(
        ("error", "status"), [(PipeClosedError(), 0), (OSError(28, "disk full"), 1)]
    )
    def test_of_showing(
        self, store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
    ) -> None:
        def fail(*_: Any) -> None:
            raise error

        store.save([Kept(None, None, None, (FIVE,))])
        monkeypatch.setattr(Output, "write", fail)
        assert logs().exit_code == status
