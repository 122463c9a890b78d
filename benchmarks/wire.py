"""Requests to a GPROChat site, without code of the measured library."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import Any

HEADERS = {"content-type": "text/plain;charset=UTF-8"}
PATH = "/api/generate"


@dataclass(frozen=True, slots=True)
class Shape:
    """Shape of the load server's reply, encoded in the prompt. server.c defines the fields."""

    chunks: int
    size: int = 16
    per_write: int = 1
    gap_ms: int = 0
    hold: bool = False
    close: bool = False
    stamped: bool = False

    @property
    def prompt(self) -> str:
        return (
            f"chunks={self.chunks} size={self.size} per_write={self.per_write} "
            f"gap_ms={self.gap_ms} hold={self.hold:d} close={self.close:d} "
            f"stamped={self.stamped:d}"
        )

    @classmethod
    def of(cls, prompt: str) -> Shape:
        """Return the shape that a prompt asks for."""
        fields: dict[str, Any] = {}
        for word in prompt.split():
            name, _, number = word.partition("=")
            fields[name] = int(number)
        return cls(**fields)

    @property
    def characters(self) -> int:
        """The number of characters in a whole reply."""
        return self.chunks * self.size


def body(prompt: str) -> bytes:
    """Return the signed body of a request, encoded as the original provider does."""
    timestamp = time.time_ns() // 1_000_000
    return json.dumps(
        {
            "messages": [{"role": "user", "parts": [{"text": prompt}]}],
            "time": timestamp,
            "pass": None,
            "sign": hashlib.sha256(f"{timestamp}:{prompt}:".encode()).hexdigest(),
        }
    ).encode()
