"""The lines of a file or a pipe, block by block, never whole."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import stat
import threading
from typing import BinaryIO, Final

import anyio
from anyio import to_thread

LINE_LIMIT: Final = 16 * 1024 * 1024
"""The longest line, in bytes without its end."""

_BLOCK: Final = 64 * 1024


class LongLine:
    """A line beyond the limit. Its bytes are gone; `digest` tells it from another one."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> bytes:
        return self._hash.digest()

    def extend(self, data: bytes) -> None:
        self._hash.update(data)


class LineSplitter:
    r"""Makes lines of blocks: what ends with `\n`, or the end. Holds one line at the most.

    :param limit: the longest line, in bytes; a longer one becomes a `LongLine`
    """

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._length = 0
        self._long: LongLine | None = None

    def feed(self, data: bytes) -> list[bytes | LongLine]:
        """The lines that end within this block."""
        first, *others = data.split(b"\n")
        self._extend(first)
        if not others:
            return []
        lines = [self._ended()]
        *whole, last = others
        lines += whole if len(data) <= self._limit else map(self._judged, whole)
        self._extend(last)
        return lines

    def finish(self) -> list[bytes | LongLine]:
        """The last line, if it has no end of its own."""
        return [self._ended()] if self._length else []

    def _judged(self, line: bytes) -> bytes | LongLine:
        self._extend(line)
        return self._ended()

    def _extend(self, data: bytes) -> None:
        self._length += len(data)
        if self._long is None and self._length > self._limit:
            self._long = LongLine()
            for piece in self._pieces:
                self._long.extend(piece)
            self._pieces.clear()
        if self._long is not None:
            self._long.extend(data)
        else:
            self._pieces.append(data)

    def _ended(self) -> bytes | LongLine:
        line: bytes | LongLine = self._long or b"".join(self._pieces)
        self._pieces.clear()
        self._length, self._long = 0, None
        return line


class LineReader:
    """Reads lines for an event loop, without ever holding it up.

    A file is read in a worker thread, a pipe or terminal when the loop says that it is readable,
    so waiting for one can be cancelled.

    :param source: a path, or a binary file, which is not closed
    """

    def __init__(self, source: str | os.PathLike[str] | BinaryIO) -> None:
        self._path = os.fspath(source) if isinstance(source, str | os.PathLike) else None
        self._file = None if isinstance(source, str | os.PathLike) else source
        self._splitter = LineSplitter()
        self._limiter = anyio.CapacityLimiter(1)  # other work in threads must not hold this up
        self._descriptor: int | None = None
        self._waits = False
        self._held = b""
        self._ended = False
        self._closed = False
        self._mutex = threading.Lock()

    def open(self) -> None:
        """Make ready to read. Blocks.

        :raises OSError: if the file can not be opened, or is a folder
        """
        with self._mutex:
            if not self._closed:  # else it was cancelled before this thread began
                self._open()

    def _open(self) -> None:
        if self._path is not None:
            self._file = open(self._path, "rb")  # noqa: SIM115, PTH123 - closed by close
        assert self._file is not None
        try:
            self._descriptor = self._file.fileno()
        except (OSError, AttributeError):  # in memory
            return
        mode = os.fstat(self._descriptor).st_mode
        terminal = stat.S_ISCHR(mode) and os.isatty(self._descriptor)
        piped = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        self._waits = (piped or terminal) and os.name == "posix" and _is_plain(self._file)
        if piped and self._waits:
            self._held = _buffered(self._file, self._descriptor)

    def close(self) -> None:
        """Close what `open` has opened; waits for a read of a file that is under way."""
        self._closed = True
        with self._mutex:
            if self._path is not None and self._file is not None:
                self._file.close()

    def is_file(self, path: str) -> bool:
        """Whether this reads the file of that path."""
        with_stat = self._descriptor is not None and os.path.exists(path)  # noqa: PTH110
        return with_stat and os.path.samestat(os.fstat(self._descriptor or 0), os.stat(path))  # noqa: PTH116

    async def next_lines(self) -> list[bytes | LongLine]:
        """The next lines, those of a block at the most; none at the end.

        Cancelled, it may have lost a block.

        :raises OSError: if reading fails
        """
        while not self._ended:
            if data := await self._next_block():
                lines = self._splitter.feed(data)
            else:
                self._ended = True
                lines = self._splitter.finish()
            if lines:
                return lines
        return []

    async def count(self) -> int | None:
        """How many lines the file has that are not blank; None if it is a pipe, or has no path.

        Reads the file a second time, in a worker thread.

        :raises OSError: if reading fails
        """
        if self._path is None or not await to_thread.run_sync(os.path.isfile, self._path):
            return None
        counter, total = _Counter(self._path), 0
        try:
            while not counter.ended:
                total += await to_thread.run_sync(counter.next_count)
        finally:
            counter.close()
        return total

    async def _next_block(self) -> bytes:
        if self._waits:
            assert self._descriptor is not None
            if self._held:
                held, self._held = self._held, b""
                return held
            await anyio.wait_readable(self._descriptor)
            return os.read(self._descriptor, _BLOCK)
        return await to_thread.run_sync(self._read_block, limiter=self._limiter)

    def _read_block(self) -> bytes:
        assert self._file is not None
        return self._file.read(_BLOCK)


def _is_plain(file: object) -> bool:
    """Whether a file gives what its descriptor does, and not what it makes of that."""
    return isinstance(getattr(file, "raw", file), io.FileIO | socket.SocketIO)


def _buffered(file: object, descriptor: int) -> bytes:
    """What a file has read from its pipe already, and nobody from the file."""
    if not isinstance(file, io.BufferedReader):
        return b""
    blocks = os.get_blocking(descriptor)
    os.set_blocking(descriptor, False)
    try:
        return file.read1() or b""
    finally:
        os.set_blocking(descriptor, blocks)


class _Counter:
    """Counts the lines of a file that are not blank, so many blocks at a time."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb")  # noqa: SIM115, PTH123 - closed by close
        self._splitter = LineSplitter()
        self.ended = False

    def next_count(self) -> int:
        data = self._file.read(16 * _BLOCK)
        self.ended = not data
        lines = self._splitter.feed(data) if data else self._splitter.finish()
        return sum(isinstance(line, LongLine) or not is_blank(line) for line in lines)

    def close(self) -> None:
        self._file.close()


def is_blank(line: bytes) -> bool:
    """Whether there is nothing on a line; the mark at the start of a file is nothing."""
    return not line.removeprefix(b"\xef\xbb\xbf").strip()
