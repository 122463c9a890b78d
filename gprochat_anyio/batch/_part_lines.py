"""Lines of part files, for merging."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from ._batch_errors import OutputError
from ._recovery import Findings, LineFacts, examine, facts_of, settled

_MOST_OPEN: Final = 200  # some systems allow a process 256 open files


class PartLine(NamedTuple):
    """Line of a part file."""

    data: bytes
    """The merged line, with its end."""
    offset: int
    """Offset of the line in the part, in bytes."""
    length: int
    """Length of the line in the part, in bytes."""
    facts: LineFacts


def lines_of(part: Path, *, completed: bool) -> Iterator[PartLine]:
    """Yield the lines of a part file.

    Damaged lines are skipped, and failures that a later line replaces.

    :param completed: Whether the shard is completed. Otherwise, the part may have replaced
        failures, and may still grow.
    :raises OutputError: If the part has a line that no batch wrote.
    """
    offset = 0
    with part.open("rb") as file:
        found = Findings(whole=part.stat().st_size)
        if not completed:
            found = examine(file, str(part))
            file.seek(0)
        for number, line in enumerate(file, 1):
            if offset >= found.whole:
                return
            facts = facts_of(line)
            if facts.state == "foreign" and line.endswith(b"\n"):
                raise OutputError(f"{part}: line {number} is not a batch's; remove it")
            gone = facts.state == "failed" and found.superseded.take(facts.key)
            if facts.state in {"answered", "failed"} and not gone:
                yield PartLine(_merged(line), offset, len(line), facts)
            offset += len(line)


def _merged(line: bytes) -> bytes:
    return settled(line if line.endswith(b"\n") else line + b"\n")


class PartReader:
    """Reader of part files' lines in any order. It keeps at most 200 files open.

    :param parts: The paths of the parts, by number.
    """

    def __init__(self, parts: Mapping[int, Path]) -> None:
        self._parts = parts
        self._statuses = {number: path.stat() for number, path in parts.items()}
        self._open: dict[int, BinaryIO] = {}

    def read(self, part: int, offset: int, length: int) -> bytes:
        """Return a line.

        :raises OutputError: If the part was replaced since this reader was created.
        """
        file = self._open.get(part) or self._opened(part)
        file.seek(offset)
        return _merged(file.read(length))

    def close(self) -> None:
        """Close the files."""
        while self._open:
            self._open.popitem()[1].close()

    def _opened(self, part: int) -> BinaryIO:
        if len(self._open) == _MOST_OPEN:
            self._open.pop(next(iter(self._open))).close()
        file = self._open[part] = self._parts[part].open("rb")
        if not os.path.samestat(os.fstat(file.fileno()), self._statuses[part]):
            raise OutputError(f"{self._parts[part]} was rewritten meanwhile; merge again")
        return file
