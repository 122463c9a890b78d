"""The log of chats: appending, marking, deleting, and files of earlier versions."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import platformdirs
import pytest

from gprochat_anyio.cli._archive import Archive, ArchivedTurn
from gprochat_anyio.cli._database import SCHEMAS, VERSION, Database, StoreError, store_path
from gprochat_anyio.cli._store import RETRIED, UNDONE, Kept, LoggedTurn, Store

ONE = LoggedTurn("one?", "1", "work", "https://w", 100.0, True, 0.1, 0.2)
TWO = LoggedTurn("two?", "2", None, "https://u", 200.0, False, 0.1, 0.2, system="Be brief.")
THREE = LoggedTurn("three?", "3", None, None, 300.0)
FOUR = LoggedTurn("four?", "4", None, "http://api/v1", 400.0, model="openai/m")
LOADED = LoggedTurn("before?", "0")


@pytest.fixture
def path() -> Path:
    return store_path()


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with closing(Store(path)) as store:
        yield store


def kept(*turns: LoggedTurn, system: str | None = None) -> list[Kept]:
    return [Kept("work", "https://w", system, turns)]


def dropped(turn: LoggedTurn, how: str = UNDONE) -> LoggedTurn:
    return turn._replace(dropped=how)


def reopened(path: Path, chat: int | None = None) -> list[Kept]:
    with closing(Store(path)) as store:
        return store.last() if chat is None else store.resume(chat)


def questions(path: Path, **options: str) -> list[str]:
    with closing(Archive(path)) as archive:
        found = archive.turns(10, **options)  # type: ignore[arg-type]
        return [entry.turn.question for entry in found if isinstance(entry, ArchivedTurn)]


def test_is_in_the_platforms_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPROCHAT_DATA")
    folder = platformdirs.user_data_path("gprochat", appauthor=False)
    assert store_path() == folder / "chats.db"


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
def test_is_for_its_owner(store: Store, path: Path) -> None:
    store.save(kept(ONE))
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700


class TestAppending:
    def test_begins_with_nothing(self, store: Store, path: Path) -> None:
        assert store.last() == []
        assert questions(path) == []

    def test_keeps_all_turns_and_marks(self, store: Store, path: Path) -> None:
        for turns in (
            (ONE,),
            (ONE, TWO),
            (ONE, dropped(TWO, RETRIED), THREE),
            (ONE, dropped(TWO, RETRIED), dropped(THREE)),
            (dropped(ONE), dropped(TWO, RETRIED), dropped(THREE), FOUR),
        ):
            store.save(kept(*turns, system="Be brief."))
            assert reopened(path) == kept(*turns, system="Be brief.")
        assert store.chat == 1
        assert questions(path) == ["one?", "two?", "three?", "four?"]

    @pytest.mark.parametrize("turns", [(), (LOADED,), (ONE._replace(earlier=True),)])
    def test_begins_no_chat_before_a_question(
        self, store: Store, turns: tuple[LoggedTurn, ...]
    ) -> None:
        store.save(kept(*turns))
        assert (store.chat, store.last()) == (None, [])
        store.save(kept(*turns, TWO))
        assert store.last() == kept(*turns, TWO)

    def test_keeps_several_sites(self, store: Store, path: Path) -> None:
        two = [
            Kept("a", "https://a", None, (ONE,)),
            Kept(None, "http://api/v1", "s", (TWO, FOUR), "openai/m"),
        ]
        store.save(two)
        assert reopened(path) == two
        store.save(two[:1])
        assert reopened(path) == two, "nothing is deleted"

    def test_a_new_chat_leaves_the_one_before_as_it_is(self, store: Store, path: Path) -> None:
        store.save(kept(ONE))
        store.begin()
        store.save(kept(ONE._replace(earlier=True), TWO))
        assert reopened(path, 1) == kept(ONE)
        assert reopened(path) == reopened(path, 2) == kept(ONE._replace(earlier=True), TWO)
        assert questions(path) == ["one?", "two?"]

    def test_two_processes_go_on_with_one_chat(self, store: Store, path: Path) -> None:
        store.save(kept(ONE))
        with closing(Store(path)) as other:
            (chat,) = other.last()
            other.save([chat._replace(turns=[*chat.turns, TWO])])
            store.save(kept(ONE, THREE))
            other.save([chat._replace(turns=[dropped(ONE), TWO, FOUR])])
            store.save(kept(ONE, dropped(THREE)))
        assert reopened(path)[0].turns == (dropped(ONE), TWO, dropped(THREE), FOUR)

    def test_last_is_the_chat_used_last(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        now = iter([10.0, 20.0, 30.0])
        monkeypatch.setattr("time.time", lambda: next(now))
        stores = [Store(path) for _ in range(2)]
        stores[0].save(kept(ONE))
        stores[1].save(kept(TWO))
        assert reopened(path) == kept(TWO)
        stores[0].save(kept(ONE, THREE))
        stores[1].save(kept(TWO))  # nothing new, so it was not used
        for store in stores:
            store.close()
        assert reopened(path) == kept(ONE, THREE)

    def test_a_single_question_is_not_the_last_chat(self, store: Store, path: Path) -> None:
        store.save(kept(ONE))
        with closing(Store(path, command="ask")) as asking:
            asking.save(kept(TWO))
        assert reopened(path) == kept(ONE)
        assert store.questions(10) == ["one?"]
        store.resume(2)
        store.save(kept(TWO, THREE))
        assert reopened(path) == kept(TWO, THREE), "it has become a chat"
        assert store.questions(2) == ["two?", "three?"]

    def test_there_is_no_such_chat(self, store: Store) -> None:
        assert store.resume(7) == []
        store.save(kept(ONE))
        assert store.chat == 1


class TestDeleting:
    def test_leaves_nothing_of_a_chat(self, store: Store, path: Path) -> None:
        store.save([Kept(None, None, "a s3cret system", (ONE._replace(reply="s3cret " * 999),))])
        store.begin()
        store.save(kept(TWO))
        with closing(Archive(path)) as archive:
            archive.delete(1)
            assert archive.turns(10, chat=1) == []
        assert reopened(path) == kept(TWO)
        files = [file.read_bytes() for file in path.parent.iterdir()]
        assert files
        assert not any(b"s3cret" in data for data in files)

    def test_frees_no_id(self, store: Store, path: Path) -> None:
        store.save(kept(ONE))
        with closing(Archive(path)) as archive:
            archive.delete(1)
        store.begin()
        assert store.last() == []
        store.save(kept(TWO))
        assert store.chat == 2

    def test_a_chat_that_is_open_goes_on(self, store: Store, path: Path) -> None:
        store.save(kept(ONE))
        with closing(Archive(path)) as archive:
            archive.delete(1)
        store.save(kept(ONE, TWO))
        store.save(kept(dropped(ONE), TWO))
        assert reopened(path) == kept(TWO)


@pytest.mark.skipif(os.name == "nt", reason="needs a link, and SQLite locks files there")
@pytest.mark.parametrize("obstacle", ["file", "folder"])
class TestFileThatCannotBeWritten:
    """A file on a read-only medium, or in a folder where SQLite cannot make its further files."""

    @pytest.fixture
    def obstruct(
        self, path: Path, obstacle: str, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[], None]:
        """Return a function that makes the file one. Modes are no obstacle for root."""

        def refuse(place: Path, *_: int) -> NoReturn:
            raise OSError(errno.EROFS, "Read-only file system", str(place))

        def obstruct() -> None:
            if obstacle == "folder":
                path.with_name("chats.db-shm").symlink_to(path.parent / "none" / "such")
            else:
                monkeypatch.setattr("gprochat_anyio.cli._database.os.open", refuse)

        return obstruct

    def test_is_read(self, path: Path, obstruct: Callable[[], None]) -> None:
        with closing(Store(path)) as store:
            store.save(kept(ONE))
        obstruct()
        assert questions(path) == ["one?"]
        assert questions(path, text="ONE") == ["one?"]
        with closing(Store(path, create=False)) as store:
            assert store.last() == kept(ONE)

    def test_of_an_older_version_is_read(self, path: Path, obstruct: Callable[[], None]) -> None:
        path.parent.mkdir()
        with closing(sqlite3.connect(path)) as db:
            db.executescript(f"PRAGMA journal_mode = WAL; {SCHEMAS[0]} PRAGMA user_version = 1")
        obstruct()
        before = path.read_bytes()
        assert questions(path) == []
        assert path.read_bytes() == before

    def test_of_a_newer_version_is_refused(self, path: Path, obstruct: Callable[[], None]) -> None:
        with closing(Database(path)) as database, database.writing() as db:
            db.execute(f"PRAGMA user_version = {VERSION + 1}")
        obstruct()
        with pytest.raises(StoreError, match="newer gprochat"):
            Archive(path)

    def test_is_not_changed(self, path: Path, obstruct: Callable[[], None]) -> None:
        with closing(Store(path)) as store:
            store.save(kept(ONE))
        obstruct()
        with closing(Archive(path)) as archive:
            with pytest.raises(StoreError, match=r"cannot write .*chats\.db: .* readonly database"):
                archive.delete(1)
        assert questions(path) == ["one?"]
        with pytest.raises(StoreError, match="cannot use"):
            Store(path)

    def test_that_a_crash_left_is_read_whole_or_not_at_all(
        self, path: Path, obstruct: Callable[[], None], obstacle: str
    ) -> None:
        """Its turn is in the write-ahead log, which SQLite cannot read without its index."""
        log = path.with_name("chats.db-wal")
        with closing(Store(path)) as store:
            store.save(kept(ONE))
            crashed = {file: file.read_bytes() for file in (path, log)}
        for file, data in crashed.items():
            file.write_bytes(data)
        obstruct()
        if obstacle == "file":
            assert questions(path) == ["one?"]
        else:
            with pytest.raises(StoreError, match=r"cannot use .*chats"):
                Archive(path)


class TestFile:
    def test_readers_and_writers_do_not_wait_for_each_other(self, store: Store, path: Path) -> None:
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    def test_of_a_newer_version_is_left_alone(self, path: Path) -> None:
        with closing(Database(path)) as database, database.writing() as db:
            db.execute(f"PRAGMA user_version = {VERSION + 1}")
        with pytest.raises(StoreError, match="newer gprochat"):
            Store(path)

    @pytest.mark.parametrize("version", [1, 2])
    def test_of_an_older_version_is_gone_on_with(self, path: Path, version: int) -> None:
        path.parent.mkdir()
        null = ("", ", NULL")[version - 1]
        with closing(sqlite3.connect(path)) as db:
            for schema in SCHEMAS[:version]:
                db.executescript(schema)
            turn = f"(1, 0, 'one?', '1', 'work', 'https://w', 100.0, 1, 0.1, 0.2{null})"
            for statement in (
                f"PRAGMA user_version = {version}",
                "INSERT INTO chats VALUES (1, 1.0)",
                f"INSERT INTO conversations VALUES (1, 1, 0, 'work', 'https://w', 'Hm.'{null})",  # noqa: S608
                f"INSERT INTO turns VALUES {turn}",  # noqa: S608
            ):
                db.execute(statement)
            db.commit()
        one = ONE._replace(system="Hm.")
        assert reopened(path) == kept(one, system="Hm.")
        with closing(Store(path)) as store:
            (chat,) = store.last()
            store.save([chat._replace(turns=[*chat.turns, FOUR], model="echo")])
        assert reopened(path) == [Kept("work", "https://w", "Hm.", (one, FOUR), "echo")]
        assert questions(path) == ["one?", "four?"]

    def test_made_by_another_process_meanwhile(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Store(path).close()
        seen = iter([0, VERSION])
        monkeypatch.setattr("gprochat_anyio.cli._database._version", lambda _: next(seen))
        with closing(Store(path)) as store:
            store.save(kept(ONE))

    def test_that_is_not_a_database(self, path: Path) -> None:
        path.parent.mkdir()
        path.write_bytes(b"no database" * 100)
        with pytest.raises(
            StoreError, match=r"cannot use .*chats.db: file is not a database; move it away"
        ):
            Store(path)

    def test_that_is_damaged(self, store: Store, path: Path) -> None:
        store.save(kept(ONE))
        store.close()
        header = path.read_bytes()[:4096]
        path.write_bytes(header + b"\xff" * (path.stat().st_size - len(header)))
        with closing(Store(path)) as damaged:
            with pytest.raises(
                StoreError, match=r"cannot read .*; move it away to start a new log"
            ):
                damaged.questions(10)
            with pytest.raises(StoreError, match=r"cannot write .*; move it away to start a new"):
                damaged.save(kept(TWO))

    def test_that_cannot_be_made(self, path: Path) -> None:
        path.parent.write_text("a file")
        with pytest.raises(StoreError) as caught:
            Store(path)
        assert str(caught.value).startswith(f"cannot use {path.parent}: ")
        assert str(caught.value).endswith("; set GPROCHAT_DATA to another folder")

    def test_holds_only_valid_text(self, store: Store, path: Path) -> None:
        with pytest.raises(StoreError, match=r"cannot write .*: a text is not valid UTF-8"):
            store.save([Kept(None, None, None, (ONE,), "openai/\udcff")])
        with pytest.raises(StoreError, match=r"cannot read .*: a text is not valid UTF-8"):
            questions(path, text="\udcff")
        store.save(kept(ONE))
        assert questions(path) == ["one?"], "the transaction before has been undone"

    def test_that_fails_later(self, store: Store, path: Path) -> None:
        store.save(kept(ONE))
        with closing(Database(path)) as database, database.writing() as db:
            db.execute("DROP TABLE turns")
        with pytest.raises(StoreError, match="cannot write"):
            store.save(kept(ONE, TWO))
        with pytest.raises(StoreError, match="cannot read"):
            store.last()

    def test_a_turn_shows_no_text(self) -> None:
        assert repr(ONE) == "<LoggedTurn, 4 and 1 characters>"
