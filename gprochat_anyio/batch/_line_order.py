"""External sorting of lines by the position of their prompts."""

from __future__ import annotations

import heapq
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

# Big-endian, so that packed entries sort like their places. 28 bytes for each line.
_ENTRY: Final = struct.Struct(">IQIQI")


class LinePlace(NamedTuple):
    """Place of a line: its prompt's in the input, and its own in a part file."""

    file: int
    """Position of the prompt's file in the list of files."""
    position: int
    """Index of the prompt in its file."""
    part: int
    """Number of the part file."""
    offset: int
    """Offset of the line in the part file, in bytes."""
    length: int
    """Length of the line, in bytes."""


class LineOrder:
    """Sorter of places. At most `run` places are in memory; the others are in a temporary file.

    :param folder: Folder of the temporary file, which is removed with the process.
    :param run: Number of places to sort at a time.
    :param block: Number of places to read at a time from each sorted run.
    """

    def __init__(self, folder: Path, *, run: int = 1 << 18, block: int = 1 << 10) -> None:
        self._file: BinaryIO = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - see close
        self._run = run
        self._block = block * _ENTRY.size
        self._entries: list[bytes] = []
        self._starts = [0]

    def add(self, place: LinePlace) -> None:
        """Add a place."""
        self._entries.append(_ENTRY.pack(*place))
        if len(self._entries) == self._run:
            self._flush()

    def sorted(self) -> Iterator[LinePlace]:
        """Return an iterator over the sorted places. Call this after the last `add`."""
        self._flush()
        runs = [
            self._read(start, end)
            for start, end in zip(self._starts, self._starts[1:], strict=False)
        ]
        return map(LinePlace._make, map(_ENTRY.unpack, heapq.merge(*runs)))

    def close(self) -> None:
        """Remove the temporary file."""
        self._file.close()

    def _flush(self) -> None:
        self._entries.sort()
        self._file.write(b"".join(self._entries))
        self._starts.append(self._starts[-1] + len(self._entries) * _ENTRY.size)
        self._entries.clear()

    def _read(self, start: int, end: int) -> Iterator[bytes]:
        for at in range(start, end, self._block):
            self._file.seek(at)
            block = self._file.read(min(self._block, end - at))
            for entry in range(0, len(block), _ENTRY.size):
                yield block[entry : entry + _ENTRY.size]
