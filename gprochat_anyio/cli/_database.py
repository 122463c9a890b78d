"""The log's SQLite file. It never holds a secret key or a password."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

SCHEMAS: Final = (
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
    """
ALTER TABLE chats ADD COLUMN command TEXT NOT NULL DEFAULT 'chat';
ALTER TABLE turns ADD COLUMN system TEXT;
ALTER TABLE turns ADD COLUMN dropped TEXT;
ALTER TABLE turns ADD COLUMN earlier INTEGER NOT NULL DEFAULT 0;
UPDATE turns SET system = (SELECT c.system FROM conversations c WHERE c.id = turns.conversation);
""",
)
"""The statements that migrate each version to the next."""
VERSION: Final = len(SCHEMAS)


_UNUSABLE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class StoreError(Exception):
    """Failure to read or write the log. The message names the file and the reason."""


def store_path() -> Path:
    """Return the path of the log, which need not exist."""
    if given := os.environ.get("GPROCHAT_DATA"):
        return Path(given) / "chats.db"
    from platformdirs import user_data_path  # noqa: PLC0415 - 10 ms

    return user_data_path("gprochat", appauthor=False) / "chats.db"


class Database:
    """The open file. Any thread may use it, one at a time.

    :param create: Create the file if it does not exist, and require that it can be written.
    :raises StoreError: If the file cannot be used. All methods raise it.
    """

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        try:
            self._db = self._opened(create=create)
        except (OSError, sqlite3.Error) as error:
            copy = None if create else self._copied()
            if copy is None:
                raise _unusable(path, error) from None
            self._db = copy

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        try:
            return self._db.execute(query, values).fetchall()
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise StoreError(f"cannot read {self.path}: {_reason_of(error)}") from None

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction for the duration of the block. An error in the block undoes it."""
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise StoreError(f"cannot write {self.path}: {_reason_of(error)}") from None

    def truncate_log(self) -> None:
        """Move SQLite's write-ahead log into the file, unless another process is reading it."""
        self.rows("PRAGMA wal_checkpoint(TRUNCATE)")

    def _opened(self, *, create: bool) -> sqlite3.Connection:
        if create:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives its further files the mode of this one.
        flags = os.O_RDWR | (os.O_CREAT if create else 0)
        os.close(os.open(self.path, flags, 0o600))
        db = sqlite3.connect(self.path, timeout=5, check_same_thread=False)
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _copied(self) -> sqlite3.Connection | None:
        """Return a copy in memory, which only migrations change. None if the file is unreadable."""
        log = self.path.with_name(f"{self.path.name}-wal")
        db = sqlite3.connect(":memory:", check_same_thread=False)
        try:
            # Without a write-ahead log, SQLite need not make its index beside the file.
            immutable = not log.exists() or log.stat().st_size == 0
            uri = f"{self.path.absolute().as_uri()}?mode=ro&immutable={immutable:d}"
            with closing(sqlite3.connect(uri, uri=True)) as file:
                file.backup(db)
            self._prepare(db)
            db.execute("PRAGMA query_only = ON")
        except (OSError, sqlite3.Error):
            db.close()
            return None
        except StoreError:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA secure_delete = ON")
        db.create_function("folded", 1, _folded, deterministic=True)
        db.text_factory = _text
        if _version(db) == VERSION:
            return
        with db:
            db.execute("BEGIN IMMEDIATE")  # another process may be migrating it
            version = _version(db)
            if version > VERSION:
                raise StoreError(
                    f"{self.path} was made by a newer gprochat (schema {version}); update this one"
                )
            for number, schema in enumerate(SCHEMAS[version:], version + 1):
                for statement in schema.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {number}")


def _text(data: bytes) -> str | bytes:
    """Return a text of the log, or its bytes if they are not valid UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _folded(data: bytes | None) -> str:
    return (data or b"").decode(errors="replace").casefold()


def _unusable(path: Path, error: OSError | sqlite3.Error) -> StoreError:
    if isinstance(error, OSError):
        place, reason = error.filename or path, error.strerror
        return StoreError(f"cannot use {place}: {reason}; set GPROCHAT_DATA to another folder")
    return StoreError(f"cannot use {path}: {_reason_of(error)}")


def _reason_of(error: sqlite3.Error | UnicodeEncodeError) -> str:
    """Return the reason of a failure, and what to do about a file that stays unusable."""
    if isinstance(error, UnicodeEncodeError):  # of an argument that the shell did not decode
        return "a text is not valid UTF-8"
    # An extended code holds its primary one in the low byte.
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _UNUSABLE:
        return f"{error}; move it away to start a new log"
    return str(error)


def _version(db: sqlite3.Connection) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    return version
