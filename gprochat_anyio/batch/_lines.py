"""Lines of a file or pipe, read in blocks."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import stat
import threading
from contextlib import suppress
from typing import BinaryIO, Final

import anyio
from anyio import to_thread

LINE_LIMIT: Final = 16 * 1024 * 1024
"""Maximum length of a line, in bytes without its end."""

_BLOCK: Final = 64 * 1024


class LongLine:
    """A line above the limit. It keeps a digest instead of the bytes."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> bytes:
        return self._hash.digest()

    def extend(self, data: bytes) -> None:
        self._hash.update(data)


class LineSplitter:
    r"""Splitter of blocks at each `\n`. It holds at most one incomplete line.

    :param limit: Maximum length of a line, in bytes. A longer one becomes a `LongLine`.
    """

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._length = 0
        self._long: LongLine | None = None

    def feed(self, data: bytes) -> list[bytes | LongLine]:
        """Return the lines that end within this block."""
        first, *others = data.split(b"\n")
        self._extend(first)
        if not others:
            return []
        lines = [self._finished()]
        *whole, last = others
        lines += whole if len(data) <= self._limit else map(self._bounded, whole)
        self._extend(last)
        return lines

    def finish(self) -> list[bytes | LongLine]:
        """Return the last line, if it does not end with a newline."""
        return [self._finished()] if self._length else []

    def _bounded(self, line: bytes) -> bytes | LongLine:
        self._extend(line)
        return self._finished()

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

    def _finished(self) -> bytes | LongLine:
        line: bytes | LongLine = self._long or b"".join(self._pieces)
        self._pieces.clear()
        self._length, self._long = 0, None
        return line


class LineReader:
    """Reader of lines that never blocks the event loop.

    Files are read in a worker thread. Pipes, sockets and terminals are read when the loop reports
    them readable, so that waiting can be cancelled. Others, such as a gzip stream of a pipe, need
    a thread, which cancellation abandons.

    :param source: A path, or a binary file, which the caller closes.
    """

    def __init__(self, source: str | os.PathLike[str] | BinaryIO) -> None:
        self._path = os.fspath(source) if isinstance(source, str | os.PathLike) else None
        self._file = None if isinstance(source, str | os.PathLike) else source
        self._splitter = LineSplitter()
        self._limiter = anyio.CapacityLimiter(1)  # other work in threads must not delay reads
        self._descriptor: int | None = None
        self._waits = self._is_regular = False
        self._held = b""
        self._ended = False
        self._closed = False
        self._mutex = threading.Lock()

    def open(self) -> None:
        """Open the file. This blocks.

        :raises OSError: If the file cannot be opened.
        """
        with self._mutex:
            if not self._closed:  # the run was cancelled before this thread began
                self._open()

    def _open(self) -> None:
        if self._path is not None:
            self._file = open(  # noqa: SIM115 - closed by close
                self._path, "rb", opener=_open_at_once
            )
        assert self._file is not None
        try:
            self._descriptor = self._file.fileno()
        except (OSError, AttributeError):  # in memory
            return
        mode = os.fstat(self._descriptor).st_mode
        self._is_regular = stat.S_ISREG(mode)
        terminal = stat.S_ISCHR(mode) and os.isatty(self._descriptor)
        piped = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        self._waits = (piped or terminal) and os.name == "posix" and _is_plain(self._file)
        if piped and self._waits:
            self._held = _buffered(self._file, self._descriptor)

    def close(self) -> None:
        """Close a file that `open` has opened, once a running read has ended."""
        self._closed = True
        with self._mutex:
            if self._path is not None and self._file is not None:
                self._file.close()

    def is_file(self, path: str) -> bool:
        """Return True if this reads the file at that path."""
        with_stat = self._descriptor is not None and os.path.exists(path)  # noqa: PTH110
        return with_stat and os.path.samestat(os.fstat(self._descriptor or 0), os.stat(path))  # noqa: PTH116

    async def next_lines(self) -> list[bytes | LongLine]:
        """Return the lines of the next block, or an empty list at the end.

        Cancellation may lose a block.

        :raises OSError: If reading fails.
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
        """Return the number of lines that are not blank, in a file with a path; else `None`.

        This reads the file a second time, in a worker thread.

        :raises OSError: If reading fails.
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
            while True:
                await anyio.wait_readable(self._descriptor)
                with suppress(BlockingIOError):  # another process has read the data
                    return os.read(self._descriptor, _BLOCK)
        return await to_thread.run_sync(
            self._read_block, limiter=self._limiter, abandon_on_cancel=not self._is_regular
        )

    def _read_block(self) -> bytes:
        assert self._file is not None
        return self._file.read(_BLOCK)


def _open_at_once(path: str, flags: int) -> int:
    """Open a file, without waiting for the writer of a named pipe."""
    if os.name == "posix" and stat.S_ISFIFO(os.stat(path).st_mode):  # noqa: PTH116
        flags |= os.O_NONBLOCK
    return os.open(path, flags)


def _is_plain(file: object) -> bool:
    """Return True if a file returns its descriptor's bytes unchanged."""
    return isinstance(getattr(file, "raw", file), io.FileIO | socket.SocketIO)


def _buffered(file: object, descriptor: int) -> bytes:
    """Return the bytes that a file has buffered from its pipe."""
    if not isinstance(file, io.BufferedReader):
        return b""
    blocks = os.get_blocking(descriptor)
    os.set_blocking(descriptor, False)
    try:
        return file.read1() or b""
    finally:
        os.set_blocking(descriptor, blocks)


class _Counter:
    """Counter of a file's lines that are not blank."""

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
    """Return True if a line holds only white space, or a byte order mark."""
    return not line.removeprefix(b"\xef\xbb\xbf").strip()
