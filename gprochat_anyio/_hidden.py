"""Bytes that are for the network only."""

from __future__ import annotations

from typing import Any


class Hidden(bytes):
    """Holds secrets, which no traceback with locals is to show: a cancellation has one."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes of a request>"

    def __add__(self, more: Any, /) -> Hidden:
        return Hidden(b"".join((self, more)))
