"""The journal of a batch: an output file whose synced lines survive a crash."""

from __future__ import annotations

import os
import stat
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import anyio
from anyio import to_thread

from ._batch_errors import OutputBusyError, OutputError
from ._keys import KeyCounts
from ._lock import FileLock
from ._place import Place
from ._recovery import examine, rewrite, sync_folder

TICK: Final = 0.05
"""Time between two writes, in seconds. Each writes the lines that were put meanwhile."""

_MOST_UNWRITTEN: Final = 8 * 1024 * 1024
_AT_ONCE: Final = 1024 * 1024
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)


class Journal:
    """Append-only file of lines, for one run at a time.

    A line survives the end of the process `TICK` after `put`, and the end of the machine
    `sync_every` after it. A hidden file in the same folder serves as the lock.

    Blocking methods may run in any thread; a mutex serializes them.

    A line may replace a failure's line. `close` removes the latter, or, after a kill, the next
    `open`.

    :param path: The file's path. Links are followed.
    :param sync_every: Time between two syncs to the disk, in seconds.
    :param openai: Whether lines must be those of OpenAI's batch files. `None` accepts both.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, sync_every: float, openai: bool | None = None
    ) -> None:
        self.path = os.path.realpath(path)
        self.answered = self.failed = KeyCounts()
        """Keys of the replies and failures that the file held when it was opened."""
        self.sites: Mapping[str, int] = {}
        """Number of lines that the file held when it was opened, by site name."""
        folder, name = os.path.split(self.path)
        self._new = os.path.join(folder, f".{name}.gprochat-new")  # noqa: PTH118
        self._lock = FileLock(os.path.join(folder, f".{name}.gprochat-lock"))  # noqa: PTH118
        self._sync_every = sync_every
        self._openai = openai
        self._mutex = threading.Lock()
        self._limiter = anyio.CapacityLimiter(1)  # other work in threads must not delay writes
        self._descriptor: int | None = None
        self._place: Place | None = None
        self._superseded = KeyCounts()
        self._size = 0
        self._broken = self._closed = False
        self._lines: deque[bytes] = deque()
        self._put = self._taken = 0  # bytes
        self._dirty = False  # written, not synced
        self._synced_at = -float("inf")
        self._wake, self._room = anyio.Event(), anyio.Event()

    def open(self) -> None:
        """Lock the file, read its keys and repair it. This blocks.

        :raises OutputBusyError: If another run has locked the file.
        :raises OutputError: If the file has lines that no batch wrote.
        :raises OSError: If the file cannot be opened.
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
        """Write and sync lines until cancelled.

        :raises OutputError: If the file was moved or removed. `close` saves its lines.
        :raises OSError: If writing or syncing fails. Lines that were not synced may be lost.
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

    def put(self, line: bytes, *, replaces: str | None = None) -> None:
        """Queue a line, for `keep_written` or `close` to write.

        :param replaces: The key of a failure whose line this one replaces.
        """
        if replaces is not None:
            self._superseded.add(replaces)
        self._lines.append(line)
        self._put += len(line)
        self._wake.set()

    @property
    def full(self) -> bool:
        """True while more than 8 MiB of lines are queued. Wait in `room` then."""
        return self._put - self._taken > _MOST_UNWRITTEN

    async def room(self) -> None:
        """Wait until the queue is not full."""
        while self.full:
            await self._room.wait()

    async def aclose(self) -> None:
        """Call `close` in a worker thread. Cancellation does not interrupt it.

        :raises OutputError: See `close`.
        :raises OSError: See `close`.
        """
        try:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(self.close, limiter=self._limiter)
        finally:
            self.close()  # the shield does not stop asyncio's own cancellation

    def close(self) -> None:
        """Write the queued lines, sync, close and unlock the file. This blocks.

        Closing a second time does nothing.

        :raises OutputError: If the file was moved or removed. The message says where its lines
            are.
        :raises OSError: If writing fails. The file is closed nevertheless.
        """
        with self._mutex:
            self._closed = True
            try:
                self._write_out(sync=True)
                self._finish()
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
                raise OutputError(f"{self.path} is not a regular file; name another output")
        with suppress(FileNotFoundError):  # left by a run that was killed
            os.unlink(self._new)  # noqa: PTH108
        self._descriptor = os.open(self.path, _FLAGS, 0o666)
        with open(self._descriptor, "rb", closefd=False) as file:
            found = examine(file, self.path, openai=self._openai)
        os.ftruncate(self._descriptor, found.whole)
        if found.lacks_end:
            os.write(self._descriptor, b"\n")
        os.fsync(self._descriptor)
        if found.damaged or found.superseded:
            self._rewrite(found.superseded)
        sync_folder(self.path)
        self.answered, self.failed, self.sites = found.answered, found.failed, found.sites
        self._place = Place(self.path, self._descriptor)
        self._size = os.fstat(self._descriptor).st_size

    def _rewrite(self, superseded: KeyCounts) -> None:
        assert self._descriptor is not None
        os.close(self._descriptor)  # Windows cannot replace an open file
        self._descriptor = None
        rewrite(self.path, self._new, without={"damaged"}, superseded=superseded)
        self._descriptor = os.open(self.path, _FLAGS, 0o666)

    def _write(self, sync: bool) -> None:
        with self._mutex:
            self._write_out(sync=sync)
            if self._place is not None and self._place.is_lost():
                raise OutputError(f"{self.path} was moved or removed while it was written")

    def _finish(self) -> None:
        if self._descriptor is None or self._place is None or self._broken:
            return
        if self._place.is_lost():
            raise OutputError(f"{self._place.save()}; the run has ended")
        if self._superseded:
            self._rewrite(self._superseded)

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
            self._broken = True  # a further line would continue the incomplete one
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
