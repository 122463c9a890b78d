"""Keys of prompts, and a compact multiset of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from gprochat_anyio import Message
from gprochat_anyio._wire.json_body import encode_json
from gprochat_anyio._wire.messages import folded

_KEPT: Final = 16
_GROUPED_BY: Final = 3  # hex digits: 4,096 groups


def key_of_messages(site: str, messages: Iterable[Message]) -> str:
    """Return the key of a prompt.

    It is the SHA-256, in hex, of the ASCII JSON text `["<site>",[["<role>","<content>"],...]]`.
    """
    return _hex(_ascii_json([site, _turns(messages)]))


def key_of_request(
    site: str, custom_id: str, messages: Iterable[Message], fields: Mapping[str, Any]
) -> str:
    """Return the key of an OpenAI request, which also covers its id and fields."""
    given = [[name, fields[name]] for name in sorted(fields)]
    return _hex(_ascii_json([site, _turns(messages), custom_id, given]))


def key_of_bad_line(site: str, line: bytes) -> str:
    """Return the key of a line without a prompt, made of its bytes."""
    return _hex(site.encode() + b"\0bad\0" + line)


def key_of_bad_item(site: str, item: object) -> str:
    """Return the key of an item that is not a prompt, the same in every process."""

    def name(value: Any) -> str:
        return type(value).__name__

    try:
        shown = json.dumps(item, default=name, skipkeys=True)
    except (ValueError, RecursionError):  # it contains itself
        shown = name(item)
    return key_of_bad_line(site, shown.encode())


class KeyCounts:
    """Multiset of keys that takes 16 bytes for each.

    A look-up takes a few microseconds per million keys.
    """

    def __init__(self) -> None:
        self._groups: dict[str, bytearray] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, key: str) -> None:
        """Add a key once."""
        kept, group = self._place(key)
        group += kept
        self._count += 1

    def take(self, key: str) -> bool:
        """Remove a key once. Return False if it is absent."""
        kept, group = self._place(key)
        at = group.find(kept)
        while at % _KEPT and at >= 0:  # a match across two neighbouring keys
            at = group.find(kept, at + 1)
        if at < 0:
            return False
        del group[at : at + _KEPT]
        self._count -= 1
        return True

    def _place(self, key: str) -> tuple[bytes, bytearray]:
        kept = bytes.fromhex(key[: 2 * _KEPT])
        return kept, self._groups.setdefault(key[:_GROUPED_BY], bytearray())


def _turns(messages: Iterable[Message]) -> list[list[str]]:
    return [[message.wire_role, message.content] for message in folded(tuple(messages))]


def _ascii_json(value: Any) -> bytes:
    quickly = encode_json(value)
    if quickly.isascii() and b"\x7f" not in quickly:
        return quickly  # the bytes that `json` would return
    return json.dumps(value, separators=(",", ":")).encode()


def _hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
