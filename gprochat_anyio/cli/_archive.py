"""The log as `gprochat logs` reads it. Only this module deletes from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ._database import Database
from ._log_values import DamagedChatError
from ._store import COLUMNS, LoggedTurn, turn_of


class ArchivedTurn(NamedTuple):
    """A logged turn and its place in the log."""

    chat: int
    """The ID of its chat."""
    number: int
    """The turn's number among those of its site or model in the chat, from 1."""
    turn: LoggedTurn

    @property
    def facts(self) -> dict[str, Any]:
        """The turn as an object for `--json`."""
        return {"chat": self.chat, "number": self.number, **self.turn._asdict()}


class Archive:
    """The logged chats, for searching.

    :raises StoreError: If the file cannot be used. All methods raise it.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path, create=False)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def turns(
        self, count: int, *, text: str | None = None, chat: int | None = None
    ) -> list[ArchivedTurn | DamagedChatError]:
        """Return the latest turns, oldest first. An error stands for a turn that is damaged.

        Turns that were loaded from a file, or taken over from another chat, are found only if
        `chat` is given.

        :param text: Text that the question or the reply must contain, ignoring case.
        :param chat: The ID of the chat.
        """
        if chat is None:
            conditions, values = ["asked IS NOT NULL AND NOT earlier"], list[object]()
        else:
            conditions, values = ["chat = ?"], [chat]
        if text is not None:
            # As blobs, because SQLite passes no invalid UTF-8 as text.
            folded = "instr(folded(CAST({} AS BLOB)), ?)"
            conditions.append(f"({folded.format('question')} OR {folded.format('reply')})")
            values += [text.casefold()] * 2
        found = self._database.rows(
            f"SELECT chat, number, {COLUMNS} FROM turns"  # noqa: S608 - our own text
            " JOIN conversations ON conversations.id = conversation"
            f" WHERE {' AND '.join(conditions)}"
            " ORDER BY asked DESC, position DESC, number DESC LIMIT ?",
            *values,
            count,
        )
        return [_entry(*row) for row in reversed(found)]

    def delete(self, chat: int) -> None:
        """Delete a chat's turns, and overwrite them in the file. The ID is not used again."""
        with self._database.writing() as db:
            db.execute("DELETE FROM conversations WHERE chat = ?", (chat,))
        self._database.truncate_log()


def _entry(chat: int, number: int, *columns: Any) -> ArchivedTurn | DamagedChatError:
    try:
        turn = turn_of(chat, number, *columns)
    except DamagedChatError as error:
        return error
    return ArchivedTurn(chat, number + 1, turn)
