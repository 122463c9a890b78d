"""A lock that the system lets go when its process dies, in whatever way."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

if sys.platform == "win32":  # pragma: no cover - another system
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class FileLock:
    """An exclusive lock by means of a file that nothing else uses.

    The file is removed at the end. One that a killed process has left is no hindrance.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock; False if another holds it, in this process or in another one.

        :raises OSError: if the file can not be made, or its file system has no locks
        """
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                locked = _is_locked(descriptor)
                if locked and _is_file_of(descriptor, self._path):
                    self._descriptor = descriptor
                    return True
            except OSError:
                os.close(descriptor)
                raise
            os.close(descriptor)
            if not locked:
                return False
            # the last holder has removed the file in between

    def release(self) -> None:
        """Let the lock go, if it is held."""
        if self._descriptor is None:
            return
        with suppress(OSError):  # Windows does not remove an open file; it can stay
            os.unlink(self._path)  # noqa: PTH108
        os.close(self._descriptor)
        self._descriptor = None


def _is_locked(descriptor: int) -> bool:
    try:
        _lock(descriptor)
    except (BlockingIOError, PermissionError):  # Windows says the latter
        return False
    return True


def _is_file_of(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))  # noqa: PTH116
    except FileNotFoundError:
        return False
