"""Files of a sharded batch's source."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import pickle
import stat
from collections.abc import Sequence
from typing import Any


def files_of(source: Any) -> tuple[str, ...] | None:
    """Return the paths of a source's files, those of a pattern sorted by name.

    The source is a path, a pattern, or a list of `os.PathLike` objects.

    :returns: `None` for any other source, such as prompts or an open file.
    :raises FileNotFoundError: If no file matches a pattern.
    :raises ValueError: If a list mixes paths and prompts, or has a file twice.
    """
    if isinstance(source, str | os.PathLike):
        return _expanded(source)
    if not isinstance(source, list | tuple):
        return None
    paths = [item for item in source if isinstance(item, os.PathLike)]
    if not paths:
        return None
    if len(paths) < len(source):
        raise ValueError("source: give a list of paths or a list of prompts, not a mixture")
    files = tuple(file for path in paths for file in _expanded(path))
    seen: set[str] = set()
    for file in map(os.path.realpath, files):
        if file in seen:
            raise ValueError(f"source: {file} is listed twice")
        seen.add(file)
    return files


def names_of(files: Sequence[str] | None) -> list[str]:
    """Return the files' paths relative to their common folder, wherever that is mounted.

    :returns: An empty list for a single file.
    """
    if files is None or len(files) == 1:
        return []
    paths = [os.path.abspath(file) for file in files]  # noqa: PTH100 - keeps links
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
    return [os.path.relpath(path, folder).replace(os.sep, "/") for path in paths]


def fingerprint(sources: Sequence[Any]) -> str | None:
    """Return a digest of the sources: the size and time of files, or the items of lists.

    :returns: `None` if changes can be found only by reading a source.
    :raises OSError: If a file is missing.
    """
    try:
        return hashlib.sha256(pickle.dumps([_state(source) for source in sources])).hexdigest()
    except (TypeError, AttributeError, pickle.PicklingError):
        return None


def _state(source: Any) -> Any:
    if isinstance(source, str | os.PathLike):
        status = os.stat(source)  # noqa: PTH116
        if stat.S_ISREG(status.st_mode):
            return status.st_size, status.st_mtime_ns
    elif isinstance(source, list | tuple):
        return source
    raise TypeError(source)


def _expanded(path: str | os.PathLike[str]) -> tuple[str, ...]:
    name = os.fspath(path)
    if not glob.has_magic(name) or os.path.exists(name):  # noqa: PTH110
        return (name,)
    if found := sorted(glob.glob(name, recursive=True)):  # noqa: PTH207
        return tuple(found)
    raise FileNotFoundError(errno.ENOENT, "no file matches", name)
