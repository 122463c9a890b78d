"""Recorded exchanges as JSON files: one exchange a file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

End: TypeAlias = Literal["complete", "closed", "reset", "left"]
"""How an exchange ended: with the whole answer; before that by the site, in an orderly way or not;
or by the client."""

HISTORIES = frozenset({"messages", "contents", "systemInstruction"})
"""The fields of requests that hold their history."""

_ENDS = ("complete", "closed", "reset", "left")


@dataclass(frozen=True, slots=True)
class Read:
    """Bytes that came at once.

    :param t: seconds after the request
    """

    t: float
    data: bytes


@dataclass(frozen=True, slots=True)
class Transcript:
    """One exchange: what was asked, and what came, byte for byte."""

    name: str
    request: dict[str, Any]
    response: Sequence[Read]
    end: End = "complete"
    note: str = ""
    secret_key: str = ""

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Transcript:
        """Read a file.

        :raises ValueError: if it holds no transcript
        """
        text = Path(path).read_bytes()
        try:
            found = json.loads(text)
            reads = [Read(float(r["t"]), bytes.fromhex(r["hex"])) for r in found["response"]]
            transcript = cls(
                found["name"],
                dict(found["request"]),
                reads,
                found["end"],
                found["note"],
                found["secret_key"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no transcript of an exchange: {error!r}") from None
        if transcript.end not in _ENDS:
            raise ValueError(f"{path}: the end of a transcript is one of {', '.join(_ENDS)}")
        return transcript

    def dump(self, path: str | os.PathLike[str]) -> None:
        """Write a file, in the place of what is there."""
        fields = {
            "name": self.name,
            "note": self.note,
            "secret_key": self.secret_key,
            "request": self.request,
            "response": [{"t": round(r.t, 4), "hex": r.data.hex()} for r in self.response],
            "end": self.end,
        }
        Path(path).write_text(json.dumps(fields, ensure_ascii=False, indent=1) + "\n", "utf-8")


def number_of(path: Path) -> int | None:
    """The number that a file's name begins with, if it does."""
    found = re.match(r"[0-9]+", path.name)
    return int(found[0]) if found else None


def transcripts_in(paths: Sequence[str | os.PathLike[str]]) -> Iterator[Transcript]:
    """The transcripts of files, and of folders in the order of their files' numbers and names.

    :raises ValueError: for a file that is none, or a folder without any
    """
    for path in map(Path, paths):
        files = sorted(path.glob("*.json"), key=_place) if path.is_dir() else [path]
        if not files:
            raise ValueError(f"{path} holds no transcripts: *.json")
        yield from map(Transcript.load, files)


def _place(path: Path) -> tuple[float, str]:
    number = number_of(path)
    return float("inf") if number is None else number, path.name
