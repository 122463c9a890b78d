"""`/save` and `/load`: conversations in JSON files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from anyio import to_thread

from ._speaker import Speaker

LOAD_LIMIT: Final = 64 * 1024 * 1024
"""Maximum size of a file to load, in bytes. No model reads as long a conversation."""


class FileError(Exception):
    """Failure to read or write a saved conversation. The message names the file."""


class SavedFiles:
    """The files that a chat saves and loads. With several sites, each has its own file."""

    def __init__(self) -> None:
        self._own: set[Path] = set()

    async def save(self, name: str, speakers: Sequence[Speaker]) -> list[Path]:
        """Write the conversations, and return the paths of their files.

        :raises FileError: If a file cannot be written, or exists and is not this chat's.
        """
        paths = _paths(name, speakers)
        for path, speaker in zip(paths, speakers, strict=True):
            text = speaker.conversation.to_json() + "\n"
            try:
                await to_thread.run_sync(self._write, path, text)
            except FileExistsError:
                raise FileError(f"{path} exists: give another name") from None
            except OSError as error:
                raise FileError(f"cannot write {path}: {error.strerror}") from None
            self._own.add(path)
        return paths

    async def load(self, name: str, speakers: Sequence[Speaker]) -> tuple[Path, list[Speaker]]:
        """Return the first file's path, and the speakers with the loaded conversations.

        :raises FileError: If a file cannot be read.
        """
        path = _path(name)
        paths = [path] * len(speakers)
        if not await to_thread.run_sync(path.exists):  # then `save` has written one for each site
            paths = _paths(name, speakers)
        elif await to_thread.run_sync(path.is_char_device):
            raise FileError(f"{path} is not a file")  # it may never end
        loaded = []
        try:
            for path, speaker in zip(paths, speakers, strict=True):
                loaded.append(speaker.loaded(await to_thread.run_sync(_read, path)))
        except OSError as error:
            raise FileError(f"cannot read {path}: {error.strerror}") from None
        except ValueError as error:
            raise FileError(f"{path} is not a conversation: {error}") from None
        self._own.update(paths)
        return paths[0], loaded

    def _write(self, path: Path, text: str) -> None:
        """Write a file that other users cannot read. Overwrite only files of this chat."""
        again = path in self._own
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if again else os.O_EXCL)
        with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(text)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(LOAD_LIMIT + 1)
    if len(data) > LOAD_LIMIT:
        limit = LOAD_LIMIT // 1024 // 1024
        raise FileError(f"{path} is larger than {limit} MiB; load a shorter conversation")
    return data


def _paths(name: str, speakers: Sequence[Speaker]) -> list[Path]:
    """Return a path for each site."""
    path = _path(name)
    if len(speakers) == 1:
        return [path]
    names = [speaker.site.name or number for number, speaker in enumerate(speakers, 1)]
    return [path.with_name(f"{path.stem}.{name}{path.suffix}") for name in names]


def _path(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise FileError(f"cannot use {name}: there is no such home directory") from None
