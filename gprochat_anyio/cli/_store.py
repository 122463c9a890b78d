"""The chats that are kept, in SQLite. It never holds a secret key or a password."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

_SCHEMAS: Final = (
    """
CREATE TABLE chats (id INTEGER PRIMARY KEY, used REAL NOT NULL);
CREATE TABLE conversations (
    id INTEGER PRIMARY KEY,
    chat INTEGER NOT NULL REFERENCES chats ON DELETE CASCADE,
    position INTEGER NOT NULL,
    site TEXT,
    url TEXT,
    system TEXT
);
CREATE INDEX conversations_of_chat ON conversations (chat, position);
CREATE TABLE turns (
    conversation INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
    number INTEGER NOT NULL,
    question TEXT NOT NULL,
    reply TEXT NOT NULL,
    site TEXT,
    url TEXT,
    asked REAL,
    complete INTEGER NOT NULL,
    first_chunk REAL,
    total REAL,
    PRIMARY KEY (conversation, number)
);
CREATE INDEX turns_by_time ON turns (asked);
""",
    """
ALTER TABLE conversations ADD COLUMN model TEXT;
ALTER TABLE turns ADD COLUMN model TEXT;
""",
)
"""What makes each version of the one before it."""
VERSION: Final = len(_SCHEMAS)
_TURN: Final = "question, reply, site, url, asked, complete, first_chunk, total, model"


class StoreError(Exception):
    """Chats can not be kept, or read; the text names the file and the reason."""


class LoggedTurn(NamedTuple):
    """A question and its reply. Its `repr` shows neither."""

    question: str
    reply: str
    site: str | None = None
    """The name of the site that answered; None if it has none."""
    url: str | None = None
    """Of the site, or of the model's API. None, and no model: the embedded site."""
    asked: float | None = None
    """Unix time; None for a turn that was loaded, not asked in this chat."""
    complete: bool = True
    first_chunk: float | None = None
    """Seconds to the first text."""
    total: float | None = None
    """Seconds to the end."""
    model: str | None = None
    """As of `Site`: what answered where there was no site."""

    def __repr__(self) -> str:
        return f"<LoggedTurn, {len(self.question)} and {len(self.reply)} characters>"


class Kept(NamedTuple):
    """A conversation: the part of a chat that one site has, or one model."""

    site: str | None
    url: str | None
    system: str | None
    turns: Sequence[LoggedTurn]
    model: str | None = None


def store_path() -> Path:
    """Where the chats are kept."""
    if given := os.environ.get("GPROCHAT_DATA"):
        return Path(given) / "chats.db"
    from platformdirs import user_data_path  # noqa: PLC0415 - 10 ms

    return user_data_path("gprochat", appauthor=False) / "chats.db"


class Store:
    """The database, for one thread at a time; it may be another one each time.

    :param create: whether to make one where there is none
    :raises StoreError: if it can not be used; so does every method
    """

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self._path = path
        self._chat: int | None = None
        self._saved: list[tuple[int, Kept]] = []
        try:
            self._db = self._opened(create=create)
        except OSError as error:
            raise StoreError(f"can not use {path}: {error.strerror}") from None
        except sqlite3.Error as error:
            raise StoreError(f"can not use {path}: {error}") from None

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def save(self, chat: Sequence[Kept]) -> None:
        """Keep a chat as it is now: what is new since it was saved last, without what is gone.

        A chat without a turn is not kept, unless it was before.
        """
        if self._chat is None and not any(conversation.turns for conversation in chat):
            return
        try:
            with self._db:
                chat_id, saved = self._save(chat)
        except sqlite3.Error as error:
            raise StoreError(f"can not write {self._path}: {error}") from None
        self._chat, self._saved = chat_id, saved

    def last(self) -> list[Kept]:
        """The chat that was used last, to be gone on with: `save` goes on with it, too."""
        query = "SELECT id FROM chats ORDER BY used DESC, id DESC LIMIT 1"
        for (chat,) in self._rows(query):
            query = (
                "SELECT id, site, url, system, model FROM conversations"
                " WHERE chat = ? ORDER BY position"
            )
            self._chat = chat
            self._saved = [
                (row, Kept(site, url, system, self._turns(row), model))
                for row, site, url, system, model in list(self._rows(query, chat))
            ]
            return [conversation for _, conversation in self._saved]
        return []

    def latest(self, count: int) -> list[LoggedTurn]:
        """The latest turns of all chats, oldest first."""
        query = (
            f"SELECT {_TURN} FROM turns WHERE asked IS NOT NULL"  # noqa: S608 - our own columns
            " ORDER BY asked DESC, conversation DESC LIMIT ?"
        )
        return [_turn(row) for row in self._rows(query, count)][::-1]

    def _save(self, chat: Sequence[Kept]) -> tuple[int, list[tuple[int, Kept]]]:
        db = self._db
        chat_id = db.execute(
            "INSERT INTO chats VALUES (?, ?) ON CONFLICT DO UPDATE SET used = excluded.used"
            " RETURNING id",
            (self._chat, time.time()),
        ).fetchone()[0]
        saved = []
        for position, new in enumerate(chat):
            row, old = self._saved[position] if position < len(self._saved) else (None, None)
            same = 0 if old is None else _in_common(old.turns, new.turns)
            row = db.execute(
                "INSERT INTO conversations VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
                " SET site = excluded.site, url = excluded.url, system = excluded.system,"
                " model = excluded.model RETURNING id",
                (row, chat_id, position, new.site, new.url, new.system, new.model),
            ).fetchone()[0]
            db.execute("DELETE FROM turns WHERE conversation = ? AND number >= ?", (row, same))
            db.executemany(
                "INSERT INTO turns VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(row, number, *new.turns[number]) for number in range(same, len(new.turns))],
            )
            saved.append((row, new._replace(turns=tuple(new.turns))))
        for row, _ in self._saved[len(chat) :]:
            db.execute("DELETE FROM conversations WHERE id = ?", (row,))
        return chat_id, saved

    def _turns(self, conversation: int) -> tuple[LoggedTurn, ...]:
        query = f"SELECT {_TURN} FROM turns WHERE conversation = ? ORDER BY number"  # noqa: S608
        return tuple(_turn(row) for row in self._rows(query, conversation))

    def _rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        try:
            with closing(self._db.execute(query, values)) as rows:
                yield from rows
        except sqlite3.Error as error:
            raise StoreError(f"can not read {self._path}: {error}") from None

    def _opened(self, *, create: bool) -> sqlite3.Connection:
        if create:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives its further files the mode of this one.
        flags = os.O_RDWR | (os.O_CREAT if create else 0)
        os.close(os.open(self._path, flags, 0o600))
        db = sqlite3.connect(self._path, timeout=5, check_same_thread=False)
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA foreign_keys = ON")
        with db:
            db.execute("BEGIN IMMEDIATE")  # another chat may be making it
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise StoreError(
                    f"{self._path} was made by a newer gprochat (schema {version}); update this one"
                )
            for number, schema in enumerate(_SCHEMAS[version:], version + 1):
                for statement in schema.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {number}")


def _turn(row: Sequence[Any]) -> LoggedTurn:
    turn = LoggedTurn(*row)
    return turn._replace(complete=bool(turn.complete))


def _in_common(old: Iterable[LoggedTurn], new: Iterable[LoggedTurn]) -> int:
    """How many turns both begin with."""
    count = 0
    for a, b in zip(old, new, strict=False):
        if a is not b:
            break
        count += 1
    return count
