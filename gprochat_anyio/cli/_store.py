"""The log of chats. Turns are appended or marked, never changed or deleted."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, NamedTuple

from ._database import Database, StoreError
from ._log_values import check_values

COLUMNS: Final = (
    "question, reply, turns.site, turns.url, asked, complete, first_chunk, total, turns.model,"
    " turns.system, dropped, earlier"
)
"""The columns of `LoggedTurn`, in its order."""

UNDONE: Final = "undone"
RETRIED: Final = "retried"


class LoggedTurn(NamedTuple):
    """A question and its reply. Its `repr` shows neither."""

    question: str
    reply: str
    site: str | None = None
    """The site's name. None if it has none."""
    url: str | None = None
    """The URL of the site or the model's API. None, without a model, for the embedded site."""
    asked: float | None = None
    """Unix time of the question. None for a turn that was loaded from a file."""
    complete: bool = True
    first_chunk: float | None = None
    """Time to the first text, in seconds."""
    total: float | None = None
    """Time to the end of the reply, in seconds."""
    model: str | None = None
    """The model that replied without a site, as in `Site`."""
    system: str | None = None
    """The instructions that were sent with the question."""
    dropped: str | None = None
    """`UNDONE` or `RETRIED` if the chat continued without the turn."""
    earlier: bool = False
    """True for a turn that was taken over from another chat."""

    def __repr__(self) -> str:
        return f"<LoggedTurn, {len(self.question)} and {len(self.reply)} characters>"


class Kept(NamedTuple):
    """The part of a chat that one site or model has: a conversation."""

    site: str | None
    url: str | None
    system: str | None
    turns: Sequence[LoggedTurn]
    """All turns, including dropped ones."""
    model: str | None = None


class _SavedChat(NamedTuple):
    """A conversation as saved in the file."""

    kept: Kept
    numbers: list[int]
    """The numbers of its turns."""


_NOTHING: Final = _SavedChat(Kept(None, None, None, ()), [])


class Store:
    """One chat at a time, appended to the log.

    :param command: The command that asks: `chat` or `ask`.
    :param create: Create the file if it does not exist. See `Database`.
    :raises StoreError: If the file cannot be used. All methods raise it.
    """

    def __init__(self, path: Path, *, command: str = "chat", create: bool = True) -> None:
        self.chat: int | None = None
        """The chat's ID. None until it is saved."""
        self._command = command
        self._saved: list[_SavedChat] = []
        self._database = Database(path, create=create)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def begin(self) -> None:
        """Start a new chat with the next `save`."""
        self.chat, self._saved = None, []

    def save(self, chat: Sequence[Kept]) -> None:
        """Append the turns since the last `save`, and mark those that were dropped since.

        A chat enters the log with its first question.
        """
        if list(chat) == [saved.kept for saved in self._saved]:
            return
        asked = (t.asked for kept in chat for t in kept.turns if not t.earlier)
        if self.chat is None and all(time_ is None for time_ in asked):
            return
        with self._database.writing() as db:
            chat_id = _touch_chat(db, self.chat, self._command)
            saved = [
                _append(db, chat_id, position, old or _NOTHING, new)
                for position, (new, old) in enumerate(
                    zip_longest(chat, self._saved[: len(chat)], fillvalue=None)
                )
                if new is not None
            ]
        self.chat, self._saved = chat_id, saved

    def last(self) -> list[Kept]:
        """Resume the chat that was used last. See `resume`."""
        found = self._database.rows(
            "SELECT id FROM chats WHERE command = 'chat'"
            " AND EXISTS (SELECT 1 FROM conversations WHERE chat = chats.id)"
            " ORDER BY used DESC, id DESC LIMIT 1"
        )
        return self.resume(found[0][0]) if found else []

    def resume(self, chat: int) -> list[Kept]:
        """Return a chat, which `save` then continues. Return an empty list if it does not exist."""
        parts = self._database.rows(
            "SELECT id, site, url, system, model FROM conversations"
            " WHERE chat = ? ORDER BY position",
            chat,
        )
        saved = []
        for row, site, url, system, model in parts:
            check_values(chat, {"site": site, "url": url, "system": system, "model": model})
            found = self._database.rows(
                f"SELECT number, {COLUMNS} FROM turns WHERE conversation = ? ORDER BY number",  # noqa: S608
                row,
            )
            turns = tuple(turn_of(chat, *columns) for columns in found)
            kept = Kept(site, url, system, turns, model)
            saved.append(_SavedChat(kept, [columns[0] for columns in found]))
            if any(_is_blank(turn) for turn in turns if turn.dropped is None):
                raise StoreError(
                    f"chat {chat} cannot be continued, because it has a blank text; `gprochat logs"
                    f" --chat {chat}` shows it"
                )
        if saved:
            self.chat, self._saved = chat, saved
        return [part.kept for part in saved]

    def questions(self, count: int) -> list[str]:
        """Return the latest questions of chats, oldest first."""
        found = self._database.rows(
            "SELECT question FROM turns"
            " JOIN conversations ON conversations.id = conversation"
            " JOIN chats ON chats.id = chat"
            " WHERE asked IS NOT NULL AND NOT earlier AND command = 'chat'"
            " ORDER BY asked DESC LIMIT ?",
            count,
        )
        return [question for (question,) in reversed(found) if isinstance(question, str)]


def turn_of(chat: int, number: int, *columns: Any) -> LoggedTurn:
    """Return the turn with these columns.

    :raises DamagedChatError: If a value does not belong in its column.
    """
    turn = LoggedTurn(*columns)
    check_values(chat, {"number": number, **turn._asdict()})
    return turn._replace(complete=bool(turn.complete), earlier=bool(turn.earlier))


def _is_blank(turn: LoggedTurn) -> bool:
    return not (turn.question.strip() and turn.reply.strip())


def _touch_chat(db: sqlite3.Connection, chat: int | None, command: str) -> int:
    row = db.execute(
        "INSERT INTO chats (id, used, command) VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
        " SET used = excluded.used, command = excluded.command RETURNING id",
        (chat, time.time(), command),
    ).fetchone()
    return int(row[0])


def _append(
    db: sqlite3.Connection, chat: int, position: int, old: _SavedChat, new: Kept
) -> _SavedChat:
    """Update a conversation. Another process may have appended to it or deleted it."""
    row = _conversation(db, chat, position, new)
    numbers = list(old.numbers)
    for number, before, after in zip(numbers, old.kept.turns, new.turns, strict=False):
        if after.dropped != before.dropped:
            db.execute(
                "UPDATE turns SET dropped = ? WHERE conversation = ? AND number = ?",
                (after.dropped, row, number),
            )
    query = "SELECT coalesce(max(number), -1) FROM turns WHERE conversation = ?"
    last = max([db.execute(query, (row,)).fetchone()[0], *numbers[-1:]])
    for number, turn in enumerate(new.turns[len(numbers) :], last + 1):
        db.execute(
            "INSERT INTO turns (conversation, number, question, reply, site, url, asked, complete,"
            " first_chunk, total, model, system, dropped, earlier)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (row, number, *turn),
        )
        numbers.append(number)
    return _SavedChat(new._replace(turns=tuple(new.turns)), numbers)


def _conversation(db: sqlite3.Connection, chat: int, position: int, kept: Kept) -> int:
    place = {"chat": chat, "position": position}
    values = {**place, "site": kept.site, "url": kept.url}
    values |= {"system": kept.system, "model": kept.model}
    query = (
        "UPDATE conversations SET site = :site, url = :url, system = :system, model = :model"
        " WHERE chat = :chat AND position = :position RETURNING id"
    )
    row = (
        db.execute(query, values).fetchone()
        or db.execute(
            "INSERT INTO conversations (chat, position, site, url, system, model)"
            " VALUES (:chat, :position, :site, :url, :system, :model) RETURNING id",
            values,
        ).fetchone()
    )
    return int(row[0])
