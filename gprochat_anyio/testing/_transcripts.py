"""Transcripts: recorded exchanges as JSON files, one file per exchange."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

End: TypeAlias = Literal["complete", "closed", "reset", "left"]
"""The end of an exchange: a complete response, a connection closed or reset by the site before
that, or a client that left."""

HISTORIES = frozenset({"messages", "contents", "systemInstruction"})
"""The fields of requests that contain the history."""

_ENDS = ("complete", "closed", "reset", "left")


@dataclass(frozen=True, slots=True)
class Read:
    """The data of one read.

    :param t: The time since the request, in seconds.
    """

    t: float
    data: bytes


@dataclass(frozen=True, slots=True)
class Transcript:
    """One exchange: the request, and the response byte for byte."""

    name: str
    request: dict[str, Any]
    response: Sequence[Read]
    end: End = "complete"
    note: str = ""
    secret_key: str = ""

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Transcript:
        """Read a transcript from a file.

        :raises ValueError: If the file does not contain a transcript.
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
            raise ValueError(f"{path} is not the transcript of an exchange: {error!r}") from None
        if transcript.end not in _ENDS:
            raise ValueError(f"{path}: the end of a transcript must be one of {', '.join(_ENDS)}")
        return transcript

    def dump(self, path: str | os.PathLike[str]) -> None:
        """Write the transcript to a file, which is replaced if it exists."""
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
    """Return the number at the beginning of a file's name, if there is one."""
    found = re.match(r"[0-9]+", path.name)
    return int(found[0]) if found else None


def transcripts_in(paths: Sequence[str | os.PathLike[str]]) -> Iterator[Transcript]:
    """Yield the transcripts of files, and of folders in the order of their files' numbers and
    names.

    :raises ValueError: If a file is not a transcript, or a folder contains none.
    """
    for path in map(Path, paths):
        files = sorted(path.glob("*.json"), key=_place) if path.is_dir() else [path]
        if not files:
            raise ValueError(f"{path} contains no transcripts (*.json)")
        yield from map(Transcript.load, files)


def _place(path: Path) -> tuple[float, str]:
    number = number_of(path)
    return float("inf") if number is None else number, path.name
