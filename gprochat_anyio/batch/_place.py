"""Detection of a renamed or removed output, and saving of its lines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ._recovery import sync_folder

_BLOCK: Final = 1024 * 1024


class Place:
    """Path of an open file, which someone may rename or remove.

    :param descriptor: The file's descriptor, open for reading.
    """

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._is_checked = self._has_file()  # False where a network file system renumbers files

    def is_lost(self) -> bool:
        """Return True if the file was renamed, replaced or removed."""
        return self._is_checked and not self._has_file()

    def save(self) -> str:
        """Write a removed file again. Return a sentence that says where its lines are. This blocks.

        :raises OSError: If writing fails.
        """
        if os.fstat(self._descriptor).st_nlink:
            return f"{self._path} was moved; all its lines are in the file that was moved"
        saved = self._free_path()
        with saved.open("xb") as file:
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            while data := os.read(self._descriptor, _BLOCK):
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(str(saved))
        return f"{self._path} was removed or replaced; all its lines were saved in {saved}"

    def _has_file(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self._path))  # noqa: PTH116
        except FileNotFoundError:
            return False

    def _free_path(self) -> Path:
        path = Path(self._path)
        path.parent.mkdir(parents=True, exist_ok=True)
        names = [path, path.with_name(f"{path.name}.saved")]
        while names[-1].exists():
            names.append(path.with_name(f"{path.name}.saved-{len(names)}"))
        return names[0] if not names[0].exists() else names[-1]
