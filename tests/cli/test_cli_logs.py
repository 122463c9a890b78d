"""Kept chats: the database, and `gprochat logs`."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from click.testing import CliRunner, Result

from gprochat_anyio.cli._main import gprochat
from gprochat_anyio.cli._output import Output, PipeClosedError
from gprochat_anyio.cli._store import (
    _SCHEMAS,
    VERSION,
    Kept,
    LoggedTurn,
    Store,
    StoreError,
    store_path,
)

ONE = LoggedTurn("one?", "1", "work", "https://w", 100.0, True, 0.1, 0.2)
TWO = LoggedTurn("two\nlines?", "2 \x1b[2J", None, "https://u", 200.0, False, 0.1, 0.2)
THREE = LoggedTurn("three?", "3", None, None, 300.0)
FOUR = LoggedTurn("four?", "4", None, "http://api/v1", 400.0, model="openai/m")
LOADED = LoggedTurn("before?", "0")


@pytest.fixture
def path() -> Path:
    return store_path()


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = Store(path)
    yield store
    store.close()


def kept(*turns: LoggedTurn, system: str | None = None) -> list[Kept]:
    return [Kept("work", "https://w", system, turns)]


def reopened(path: Path) -> list[Kept]:
    store = Store(path)
    try:
        return store.last()
    finally:
        store.close()


class TestStore:
    def test_is_in_the_platforms_folder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("GPROCHAT_DATA")
        folder = platformdirs.user_data_path("gprochat", appauthor=False)
        assert store_path() == folder / "chats.db"

    def test_begins_with_nothing(self, store: Store) -> None:
        assert store.last() == []
        assert store.latest(10) == []

    @pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
    def test_is_for_its_owner(self, store: Store, path: Path) -> None:
        store.save(kept(ONE))
        assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
        assert path.parent.stat().st_mode & 0o777 == 0o700

    def test_keeps_a_chat_as_it_is_now(self, store: Store, path: Path) -> None:
        for turns in ((ONE,), (ONE, TWO), (ONE, THREE), (ONE,), ()):
            store.save(kept(*turns, system="Be brief."))
            assert reopened(path) == kept(*turns, system="Be brief.")

    def test_keeps_no_chat_without_a_turn(self, store: Store) -> None:
        store.save(kept())
        assert store.last() == []

    def test_keeps_several_sites(self, store: Store, path: Path) -> None:
        two = [
            Kept("a", "https://a", None, (ONE,)),
            Kept(None, "http://api/v1", "s", (TWO, FOUR), "openai/m"),
        ]
        store.save(two)
        assert reopened(path) == two
        store.save(two[:1])
        assert reopened(path) == two[:1]

    def test_goes_on_with_the_last_one(self, store: Store, path: Path) -> None:
        store.save(kept(ONE))
        other = Store(path)
        (chat,) = other.last()
        other.save([chat._replace(turns=[*chat.turns, TWO])])
        other.save(kept(*chat.turns, TWO, THREE))
        other.close()
        assert reopened(path) == kept(ONE, TWO, THREE)

    def test_last_is_what_was_used_last(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        now = iter([10.0, 20.0, 30.0])
        monkeypatch.setattr("time.time", lambda: next(now))
        stores = [Store(path) for _ in range(2)]
        stores[0].save(kept(ONE))
        stores[1].save(kept(TWO))
        assert reopened(path) == kept(TWO)
        stores[0].save(kept(ONE, THREE))
        for store in stores:
            store.close()
        assert reopened(path) == kept(ONE, THREE)

    def test_lists_what_was_asked(self, store: Store) -> None:
        store.save([Kept(None, None, None, (LOADED, ONE, TWO)), Kept(None, None, None, (THREE,))])
        assert store.latest(10) == [ONE, TWO, THREE]
        assert store.latest(2) == [TWO, THREE]

    def test_waits_for_nobody_who_reads(self, store: Store, path: Path) -> None:
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    def test_of_a_newer_version_is_left_alone(self, store: Store, path: Path) -> None:
        store._db.execute(f"PRAGMA user_version = {VERSION + 1}")
        with pytest.raises(StoreError, match="newer gprochat"):
            Store(path)

    def test_of_an_older_version_is_gone_on_with(self, path: Path) -> None:
        path.parent.mkdir()
        with closing(sqlite3.connect(path)) as db:
            db.executescript(_SCHEMAS[0])
            db.executescript(
                "PRAGMA user_version = 1; INSERT INTO chats VALUES (1, 1.0);"
                "INSERT INTO conversations VALUES (1, 1, 0, 'work', 'https://w', NULL);"
                "INSERT INTO turns"
                " VALUES (1, 0, 'one?', '1', 'work', 'https://w', 100.0, 1, 0.1, 0.2)"
            )
        assert reopened(path) == kept(ONE)
        with closing(Store(path)) as store:
            (chat,) = store.last()
            store.save([chat._replace(turns=[*chat.turns, FOUR], model="echo")])
        assert reopened(path) == [Kept("work", "https://w", None, (ONE, FOUR), "echo")]

    def test_that_is_none(self, path: Path) -> None:
        path.parent.mkdir()
        path.write_bytes(b"no database" * 100)
        with pytest.raises(StoreError, match=r"can not use .*chats.db: file is not a database"):
            Store(path)

    def test_that_can_not_be_made(self, path: Path) -> None:
        path.parent.write_text("a file")
        with pytest.raises(StoreError, match=r"can not use .*chats.db: "):
            Store(path)

    def test_that_fails_later(self, store: Store) -> None:
        store.save(kept(ONE))
        store._db.execute("DROP TABLE turns")
        with pytest.raises(StoreError, match="can not write"):
            store.save(kept(ONE, TWO))
        with pytest.raises(StoreError, match="can not read"):
            store.latest(1)

    def test_a_turn_shows_no_text(self) -> None:
        assert repr(ONE) == "<LoggedTurn, 4 and 1 characters>"


def logs(*arguments: str) -> Result:
    return CliRunner().invoke(gprochat, ["logs", *arguments])


class TestLogs:
    def test_of_nothing(self) -> None:
        result = logs()
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr == "gprochat: no chat was kept yet\n"
        assert not store_path().exists()

    def test_are_for_people(self, store: Store) -> None:
        store.save(kept(ONE, TWO, THREE, FOUR))
        blocks = logs().stdout.split("\n\n")
        assert [block[16:] for block in blocks] == [
            "  work\n> one?\n1",
            "  https://u  (stopped)\n> two\n> lines?\n2 \x1b[2J",
            "  embedded\n> three?\n3",
            "  openai/m\n> four?\n4",
            "",
        ]

    def test_are_for_programs(self, store: Store) -> None:
        store.save(kept(ONE, TWO, THREE))
        turns = [json.loads(line) for line in logs("--json", "-n0").stdout.splitlines()]
        assert turns == [turn._asdict() for turn in (ONE, TWO, THREE)]
        assert len(logs("--json", "-n", "1").stdout.splitlines()) == 1

    def test_have_a_place(self) -> None:
        assert logs("--path").stdout == f"{store_path()}\n"

    def test_that_can_not_be_read(self, path: Path) -> None:
        path.parent.mkdir()
        path.write_bytes(b"no database" * 100)
        result = logs()
        assert result.exit_code == 1
        assert result.stderr.startswith(f"gprochat: can not use {path}")

    @pytest.mark.parametrize(
        ("error", "status"), [(PipeClosedError(), 0), (OSError(28, "disk full"), 1)]
    )
    def test_that_can_not_be_shown(
        self, store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
    ) -> None:
        def fail(*_: Any) -> None:
            raise error

        store.save(kept(ONE))
        monkeypatch.setattr(Output, "write", fail)
        assert logs().exit_code == status
