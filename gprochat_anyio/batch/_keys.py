"""What tells one prompt from another, and a compact set of that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Final

from gprochat_anyio import Message
from gprochat_anyio._wire.messages import folded

_KEPT: Final = 16
_GROUPED_BY: Final = 3  # hex digits: 4,096 groups


def key_of_messages(site: str, messages: Iterable[Message]) -> str:
    """SHA-256, in hex, of the JSON text `["<site>",[["<role>","<content>"],...]]`, in ASCII."""
    turns = [[message.wire_role, message.content] for message in folded(tuple(messages))]
    return _hex(json.dumps([site, turns], separators=(",", ":")).encode())


def key_of_bad_line(site: str, line: bytes) -> str:
    """The key of what holds no prompt: of its very bytes."""
    return _hex(site.encode() + b"\0bad\0" + line)


def key_of_bad_item(site: str, item: object) -> str:
    """The key of an item that is no prompt; the same in every process."""

    def name(value: Any) -> str:
        return type(value).__name__

    try:
        shown = json.dumps(item, default=name, skipkeys=True)
    except (ValueError, RecursionError):  # it holds itself
        shown = name(item)
    return key_of_bad_line(site, shown.encode())


class KeyCounts:
    """How often each key is there. Holds 16 bytes of each, and next to nothing besides.

    With many keys a look takes a few microseconds per million.
    """

    def __init__(self) -> None:
        self._groups: dict[str, bytearray] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, key: str) -> None:
        """Count a key once more."""
        kept, group = self._place(key)
        group += kept
        self._count += 1

    def take(self, key: str) -> bool:
        """Count a key once less; False if it is not there."""
        kept, group = self._place(key)
        at = group.find(kept)
        while at % _KEPT and at >= 0:  # the end of one key and the start of the next
            at = group.find(kept, at + 1)
        if at < 0:
            return False
        del group[at : at + _KEPT]
        self._count -= 1
        return True

    def _place(self, key: str) -> tuple[bytes, bytearray]:
        kept = bytes.fromhex(key[: 2 * _KEPT])
        return kept, self._groups.setdefault(key[:_GROUPED_BY], bytearray())


def _hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
