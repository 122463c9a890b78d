"""A file lock that the system releases when its process ends."""

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
    """Exclusive lock on a file that serves no other purpose.

    `release` removes the file. A file that a killed process has left is not locked.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Acquire the lock. Return False if it is held, by this process or another one.

        :raises OSError: If the file cannot be created, or its file system does not support locks.
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
            # the previous holder has removed the file meanwhile

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._descriptor is None:
            return
        with suppress(OSError):  # Windows cannot remove an open file, which does no harm
            os.unlink(self._path)  # noqa: PTH108
        os.close(self._descriptor)
        self._descriptor = None


def _is_locked(descriptor: int) -> bool:
    try:
        _lock(descriptor)
    except (BlockingIOError, PermissionError):  # the latter on Windows
        return False
    return True


def _is_file_of(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))  # noqa: PTH116
    except FileNotFoundError:
        return False
