"""The output: lines that, once synced, survive whatever happens."""

from __future__ import annotations

import os
import stat
import threading
from collections import deque
from contextlib import suppress
from typing import Final

import anyio
from anyio import to_thread

from ._batch_errors import OutputBusyError, OutputError
from ._keys import KeyCounts
from ._lock import FileLock
from ._recovery import examine, rewrite, sync_folder

TICK: Final = 0.05
"""Seconds that a line waits to be handed to the system; with the next ones, in a worker thread."""

_MOST_UNWRITTEN: Final = 8 * 1024 * 1024
_AT_ONCE: Final = 1024 * 1024
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)


class Journal:
    """An append-only file of lines, for one run at a time.

    What has been put survives the death of the process after `TICK`, and of the machine after
    `sync_every`. The file is locked by a hidden one beside it.

    Its blocking methods may run in any thread; each waits for the one before.

    :param path: of the file; links are followed
    :param sync_every: seconds
    :param retry_failed: whether to take failures out of the file first
    """

    def __init__(
        self, path: str | os.PathLike[str], *, sync_every: float, retry_failed: bool
    ) -> None:
        self.path = os.path.realpath(path)
        self.answered = self.failed = KeyCounts()
        """Keys of the replies and failures that the file held when it was opened."""
        folder, name = os.path.split(self.path)
        self._new = os.path.join(folder, f".{name}.gprochat-new")  # noqa: PTH118
        self._lock = FileLock(os.path.join(folder, f".{name}.gprochat-lock"))  # noqa: PTH118
        self._sync_every = sync_every
        self._retry_failed = retry_failed
        self._mutex = threading.Lock()
        self._limiter = anyio.CapacityLimiter(1)  # other work in threads must not hold this up
        self._descriptor: int | None = None
        self._size = 0
        self._broken = self._closed = False
        self._lines: deque[bytes] = deque()
        self._put = self._taken = 0  # bytes
        self._dirty = False  # written, not synced
        self._synced_at = -float("inf")
        self._wake, self._room = anyio.Event(), anyio.Event()

    def open(self) -> None:
        """Lock the file, make it whole, and read what is done. Blocks.

        :raises OutputBusyError: if another run has it
        :raises OutputError: if it holds lines that are not ours
        :raises OSError: if it can not be opened
        """
        with self._mutex:
            if self._closed:  # the run was cancelled before this thread began
                return
            try:
                self._open()
            except BaseException:
                self._release()
                raise

    async def keep_written(self) -> None:
        """Write what is put, and sync it, until cancelled.

        :raises OSError: if that fails; what was not synced is to be taken for lost
        """
        while True:
            if not self._lines and not self._dirty:
                self._wake = anyio.Event()
                await self._wake.wait()
            due = anyio.current_time() >= self._synced_at + self._sync_every
            if self._lines or due:
                await to_thread.run_sync(self._write, due, limiter=self._limiter)
                if due:
                    self._synced_at = anyio.current_time()
                self._room.set()
                self._room = anyio.Event()
            await anyio.sleep(TICK)

    def put(self, line: bytes) -> None:
        """Have a line written soon, for `keep_written`, or at the latest by `close`."""
        self._lines.append(line)
        self._put += len(line)
        self._wake.set()

    @property
    def full(self) -> bool:
        """Whether there is so much to write (8 MiB) that one should wait with `room`."""
        return self._put - self._taken > _MOST_UNWRITTEN

    async def room(self) -> None:
        """Wait until it is not full."""
        while self.full:
            await self._room.wait()

    async def aclose(self) -> None:
        """Write, sync and close, in a worker thread. Cancelled, it does that all the same.

        :raises OSError: if that fails
        """
        try:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(self.close, limiter=self._limiter)
        finally:
            self.close()  # asyncio's own cancellation goes through the shield

    def close(self) -> None:
        """Write, sync, close and unlock, unless that was done. Blocks.

        :raises OSError: if that fails; it is closed then, too
        """
        with self._mutex:
            self._closed = True
            try:
                self._write_out(sync=True)
            finally:
                self._release()

    def _open(self) -> None:
        try:
            locked = self._lock.acquire()
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.path) from None
        if not locked:
            raise OutputBusyError(
                f"another run is writing {self.path}; wait for it, or name another file"
            )
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(os.stat(self.path).st_mode):  # noqa: PTH116
                raise OutputError(f"{self.path} is no file; name one for the output")
        with suppress(FileNotFoundError):  # of a run that was killed
            os.unlink(self._new)  # noqa: PTH108
        self._descriptor = os.open(self.path, _FLAGS, 0o666)
        with open(self._descriptor, "rb", closefd=False) as file:
            found = examine(file, self.path)
        os.ftruncate(self._descriptor, found.whole)
        if found.lacks_end:
            os.write(self._descriptor, b"\n")
        os.fsync(self._descriptor)
        if found.damaged or (self._retry_failed and found.failed):
            self._rewrite()
        sync_folder(self.path)
        self.answered = found.answered
        self.failed = KeyCounts() if self._retry_failed else found.failed
        self._size = os.fstat(self._descriptor).st_size

    def _rewrite(self) -> None:
        assert self._descriptor is not None
        os.close(self._descriptor)  # Windows replaces no open file
        self._descriptor = None
        rewrite(
            self.path,
            self._new,
            without={"damaged", "failed"} if self._retry_failed else {"damaged"},
        )
        self._descriptor = os.open(self.path, _FLAGS, 0o666)

    def _write(self, sync: bool) -> None:
        with self._mutex:
            self._write_out(sync=sync)

    def _write_out(self, *, sync: bool) -> None:
        if self._descriptor is None or self._broken:
            return
        try:
            while data := self._take():
                view = memoryview(data)
                while view:
                    view = view[os.write(self._descriptor, view) :]
                self._size += len(data)
                self._dirty = True
            if sync and self._dirty:
                os.fsync(self._descriptor)
                self._dirty = False
        except OSError as error:
            self._broken = True  # a line more would stick to the one that was not written whole
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise OSError(error.errno, error.strerror, self.path) from None

    def _take(self) -> bytes:
        lines: list[bytes] = []
        length = 0
        while length < _AT_ONCE and self._lines:
            lines.append(self._lines.popleft())
            length += len(lines[-1])
        self._taken += length
        return b"".join(lines)

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._lock.release()
