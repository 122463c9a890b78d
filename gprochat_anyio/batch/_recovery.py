"""Recovery of an earlier run's output: reading its lines, and repairing the file."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, Literal, NamedTuple

import msgspec

from ._batch_errors import OutputError
from ._keys import KeyCounts
from ._line_json import UNDECODABLE

State = Literal["answered", "failed", "blank", "damaged", "foreign"]

_START: Final = b'{"id":'
_KEY: Final = re.compile("[0-9a-f]{64}")
_RETRIED: Final = re.compile(rb',"retried":"[0-9a-f]{64}"\}\n\Z')
"""The end of a line that replaces a failure's, until the latter is removed."""


class _Response(msgspec.Struct):
    status_code: int


class _LineFields(msgspec.Struct):
    """Fields that identify a line."""

    key: str | None = None
    index: int | None = None
    text: str | None = None
    error: dict[str, Any] | None = None
    custom_id: Any = msgspec.UNSET
    response: _Response | None = None
    site: str | None = None
    retried: str | None = None
    file: Any = None


_decode_line: Final = msgspec.json.Decoder(_LineFields).decode


class LineFacts(NamedTuple):
    """Facts about a line of the output."""

    state: State
    key: str = ""
    site: str | None = None
    """The name of the site."""
    retried: str | None = None
    """The key of a failure whose line this one replaces."""
    openai: bool = False
    """True for a line of OpenAI's batch files."""
    position: int = 0
    """The index of the prompt in its file."""
    file: Any = None
    """The name of the prompt's file, if there are several."""


@dataclass
class Findings:
    """Contents of an output.

    :param answered: The keys of the replies.
    :param failed: The keys of the failures that no later line replaces.
    :param superseded: The keys of the other failures.
    :param sites: The number of lines by site name.
    :param whole: The size of the complete lines, in bytes.
    :param lacks_end: Whether the last line is complete except for its newline.
    :param damaged: Whether a power failure has damaged lines.
    """

    answered: KeyCounts = field(default_factory=KeyCounts)
    failed: KeyCounts = field(default_factory=KeyCounts)
    superseded: KeyCounts = field(default_factory=KeyCounts)
    sites: Counter[str] = field(default_factory=Counter)
    whole: int = 0
    lacks_end: bool = False
    damaged: bool = False

    @property
    def keys(self) -> int:
        """The number of keys, without superseded ones."""
        return len(self.answered) + len(self.failed)

    def add(self, line: LineFacts) -> None:
        """Add a line with a reply or a failure."""
        if line.retried is not None and self.failed.take(line.retried):
            self.superseded.add(line.retried)
        (self.answered if line.state == "answered" else self.failed).add(line.key)
        if line.site is not None:
            self.sites[line.site] += 1


def examine(file: BinaryIO, name: str, *, openai: bool | None = None) -> Findings:
    """Read an output, line by line.

    :param name: The output's name in errors.
    :param openai: Whether lines must be those of OpenAI's batch files. `None` accepts both.
    :raises OutputError: If a line was written by no batch, or has the other format.
    """
    found = Findings()
    start = file.read(len(_START))
    file.seek(0)
    if not _may_be_ours(start.lstrip()):  # the first line of another file may be all of it
        raise _foreign(name, 1)
    for number, line in enumerate(file, 1):
        facts = facts_of(line)
        state = facts.state
        ours = state in {"answered", "failed"}
        if ours and openai not in {None, facts.openai}:
            raise _of_another_format(name, number, openai=facts.openai)
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
            found.add(facts)
    return found


def state_of(line: bytes) -> tuple[State, str]:
    """Return the state of a line of the output, and its key, or an empty string."""
    return facts_of(line)[:2]


def facts_of(line: bytes) -> LineFacts:
    """Return the facts about a line of the output."""
    if not line.strip():
        return LineFacts("blank")
    if b"\0" in line:  # JSON escapes it, so the block was allocated but not written
        return LineFacts("damaged")
    try:
        fields = _decode_line(line)
    except UNDECODABLE:
        try:  # json accepts half a surrogate pair
            fields = msgspec.convert(_loaded(line), _LineFields)
        except msgspec.ValidationError:
            return LineFacts("foreign")
    key = fields.key or ""
    if fields.index is None or not _KEY.fullmatch(key):
        return LineFacts("foreign")
    openai = fields.custom_id is not msgspec.UNSET and fields.text is None
    if fields.text is not None or (fields.response and fields.response.status_code == 200):
        state: State = "answered"
    elif fields.error is not None or fields.response is not None:
        state = "failed"
    else:
        return LineFacts("foreign")
    return LineFacts(state, key, fields.site, fields.retried, openai, fields.index, fields.file)


def rewrite(
    path: str, new: str, *, without: set[State], superseded: KeyCounts | None = None
) -> None:
    """Replace an output atomically by a copy without some of its lines.

    :param new: The path of the copy, in the same folder.
    :param without: The states of the lines to leave out.
    :param superseded: The keys of failures to leave out, one line for each. This removes the keys.
    """
    gone = superseded or KeyCounts()
    with open(path, "rb") as old, open(new, "wb") as file:  # noqa: PTH123
        for line in old:
            state, key = state_of(line)
            if state in without or (state == "failed" and gone.take(key)):
                continue
            file.write(settled(line))
        file.flush()
        os.fsync(file.fileno())
    shutil.copymode(path, new)
    os.replace(new, path)  # noqa: PTH105
    sync_folder(path)


def settled(line: bytes) -> bytes:
    """Return a line without the key of the failure that it replaces."""
    return _RETRIED.sub(b"}\n", line)


def sync_folder(path: str) -> None:
    """Sync the entry of a file in its folder to the disk."""
    with suppress(OSError):  # Windows cannot open a folder
        folder = os.open(os.path.dirname(path), os.O_RDONLY)  # noqa: PTH120
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _may_be_ours(line: bytes) -> bool:
    return _START.startswith(line[: len(_START)])


def _loaded(line: bytes) -> Any:
    """Return the JSON value of a line, or `None` if it is invalid."""
    try:
        return json.loads(line.decode())
    except (ValueError, RecursionError):
        return None


def _foreign(name: str, number: int) -> OutputError:
    return OutputError(
        f"{name} is left unchanged: its line {number} is not a batch's; "
        "name another file, or remove that line"
    )


def _of_another_format(name: str, number: int, *, openai: bool) -> OutputError:
    found = "in OpenAI's format" if openai else "not in OpenAI's format"
    return OutputError(
        f"{name} is left unchanged: its line {number} is {found}; "
        "name another file, or give the format of the earlier runs"
    )
