"""Checks of the log's values, which other programs may have altered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from ._database import StoreError

_LARGEST: Final = 2**53
_LATEST: Final = 253_370_764_800.0
"""Unix time of the year 9999, the last one of dates."""


class DamagedChatError(StoreError):
    """Value in the log that does not belong in its column. Other chats can be used."""

    def __init__(self, chat: object, column: str) -> None:
        if isinstance(chat, int):
            where = f"chat {chat} has an invalid value of `{column}`"
            advice = f"delete the chat: `gprochat logs --delete {chat}`"
        else:
            where = "a chat has an invalid ID"
            advice = "move the file away: `gprochat logs --path`"
        super().__init__(f"the log is damaged: {where}; correct it, or {advice}")


def check_values(chat: object, values: Mapping[str, object]) -> None:
    """Check values of a chat. SQLite accepts any value in any column.

    :param values: Values by column, as read with the text factory of `Database`.
    :raises DamagedChatError: If a value does not belong in its column.
    """
    if not isinstance(chat, int):
        raise DamagedChatError(chat, "chat")
    for column, value in values.items():
        belongs = column not in _REQUIRED if value is None else _CHECKS[column](value)
        if not belongs:
            raise DamagedChatError(chat, column)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < _LARGEST


def _is_time(value: object) -> bool:
    return isinstance(value, float) and 0 <= value < _LATEST


_CHECKS: Final[Mapping[str, Callable[[object], bool]]] = {
    **dict.fromkeys(("question", "reply", "site", "url", "model", "system", "dropped"), _is_text),
    **dict.fromkeys(("number", "complete", "earlier"), _is_number),
    **dict.fromkeys(("asked", "first_chunk", "total"), _is_time),
}
_REQUIRED: Final = frozenset({"question", "reply", "number", "complete", "earlier"})
