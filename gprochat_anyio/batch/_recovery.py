"""What an earlier run has left in the output, and how it is made whole."""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, Literal

from ._batch_errors import OutputError
from ._keys import KeyCounts

State = Literal["answered", "failed", "blank", "damaged", "foreign"]

_START: Final = b'{"id":'
_KEY: Final = re.compile("[0-9a-f]{64}")


@dataclass
class Findings:
    """What an output holds.

    :param answered: the keys of its replies
    :param failed: the keys of its failures
    :param whole: how many bytes its whole lines have
    :param lacks_end: whether all that its last line lacks is its end
    :param damaged: whether there are lines that a power failure has spoilt
    """

    answered: KeyCounts = field(default_factory=KeyCounts)
    failed: KeyCounts = field(default_factory=KeyCounts)
    whole: int = 0
    lacks_end: bool = False
    damaged: bool = False

    @property
    def keys(self) -> int:
        """How many lines are ours."""
        return len(self.answered) + len(self.failed)


def examine(file: BinaryIO, name: str) -> Findings:
    """Read an output. Holds one line at a time.

    :param name: what to call it in the error
    :raises OutputError: if it holds a line that no batch has written
    """
    found = Findings()
    start = file.read(len(_START))
    file.seek(0)
    if not _may_be_ours(start.lstrip()):  # before a file without lines is read whole
        raise _foreign(name, 1)
    for number, line in enumerate(file, 1):
        state, key = state_of(line)
        ours = state in {"answered", "failed"}
        if not line.endswith(b"\n") and not ours:
            if not found.keys and (_loaded(line) is not None or not _may_be_ours(line)):
                raise _foreign(name, number)
            break  # torn
        if state == "foreign" or (state == "damaged" and not found.keys):
            raise _foreign(name, number)
        found.whole += len(line)
        found.lacks_end = not line.endswith(b"\n")
        found.damaged |= state == "damaged"
        if ours:
            (found.answered if state == "answered" else found.failed).add(key)
    return found


def state_of(line: bytes) -> tuple[State, str]:
    """What a line of the output is, and its key if it has one."""
    if not line.strip():
        return "blank", ""
    if b"\0" in line:  # in no text, but in blocks that the system had no time to write
        return "damaged", ""
    fields = _loaded(line)
    key = fields.get("key") if isinstance(fields, dict) else None
    if isinstance(key, str) and _KEY.fullmatch(key) and isinstance(fields.get("index"), int):
        if isinstance(fields.get("text"), str):
            return "answered", key
        if isinstance(fields.get("error"), dict):
            return "failed", key
    return "foreign", ""


def rewrite(path: str, new: str, *, without: set[State]) -> None:
    """Replace an output by one without some of its lines: all at once, or not at all.

    :param new: a path beside it, for the time of writing
    """
    with open(path, "rb") as old, open(new, "wb") as file:  # noqa: PTH123
        for line in old:
            if state_of(line)[0] not in without:
                file.write(line)
        file.flush()
        os.fsync(file.fileno())
    shutil.copymode(path, new)
    os.replace(new, path)  # noqa: PTH105
    sync_folder(path)


def sync_folder(path: str) -> None:
    """Make the entry of a file in its folder durable, where the system can."""
    with suppress(OSError):  # Windows can not
        folder = os.open(os.path.dirname(path), os.O_RDONLY)  # noqa: PTH120
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _may_be_ours(line: bytes) -> bool:
    return _START.startswith(line[: len(_START)])


def _loaded(line: bytes) -> Any:
    """The JSON value of a line; None if it has none."""
    try:
        return json.loads(line.decode())
    except (ValueError, RecursionError):
        return None


def _foreign(name: str, number: int) -> OutputError:
    return OutputError(
        f"{name} is left as it is: its line {number} is not of a batch's output; "
        "name another file, or take that line out"
    )
