"""Where the prompts of a batch come from, one at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterable, Iterable, Sized
from typing import Any, BinaryIO, Final, Protocol, cast

from anyio.lowlevel import checkpoint

from gprochat_anyio._fanout import prompts as fanout

from ._lines import LineReader, LongLine, is_blank
from ._records import Format, Record, record_of_item, record_of_line

Source = str | os.PathLike[str] | BinaryIO | Iterable[Any] | AsyncIterable[Any]

_JSON_SUFFIXES: Final = (".jsonl", ".ndjson", ".json")
_PAUSE: Final = 100
"""Items of an iterable after which the event loop gets its turn."""


class Records(Protocol):
    """Gives one record after the other."""

    def open(self) -> None:
        """Make ready; blocks."""
        ...

    def is_file(self, path: str) -> bool:
        """Whether the file of that path is read."""
        ...

    async def count(self) -> int | None:
        """How many there are; None if it is not known."""
        ...

    async def next(self) -> Record | None:
        """The next one; None at the end. Not to be called again once it was cancelled."""
        ...

    async def aclose(self) -> None:
        """Let go what it reads; by the task that has called `next`."""
        ...


def records_of(source: Source, format: Format | None, site: str) -> Records:
    """The records of what `run_batch` takes.

    :raises ValueError: if it is nothing of that
    """
    if format not in {None, "jsonl", "text"}:
        raise ValueError('format is "jsonl" or "text", or None to tell by the name')
    if isinstance(source, str | os.PathLike):
        jsonl = os.fspath(source).lower().endswith(_JSON_SUFFIXES)
        return FileRecords(LineReader(source), format or ("jsonl" if jsonl else "text"), site)
    if hasattr(source, "read") and not isinstance(source, AsyncIterable):
        if hasattr(source, "encoding"):
            raise ValueError("source: open the file in binary mode; stdin is sys.stdin.buffer")
        return FileRecords(LineReader(cast("BinaryIO", source)), format, site)
    return ItemRecords(source, site)


class FileRecords:
    """Records of lines.

    :param format: None to tell by the first line: JSON if it begins with `{`
    """

    def __init__(self, reader: LineReader, format: Format | None, site: str) -> None:
        self._reader = reader
        self._format: Format | None = format
        self._site = site
        self._lines: deque[bytes | LongLine] = deque()
        self._number = self._index = 0

    def open(self) -> None:
        self._reader.open()

    def is_file(self, path: str) -> bool:
        return self._reader.is_file(path)

    async def count(self) -> int | None:
        return await self._reader.count()

    async def next(self) -> Record | None:
        while True:
            if not self._lines:
                self._lines.extend(await self._reader.next_lines())
                if not self._lines:
                    return None
            line = self._lines.popleft()
            self._number += 1
            if not isinstance(line, LongLine) and is_blank(line):
                continue
            if self._format is None:
                self._format = _format_of(line)
            self._index += 1
            return record_of_line(
                line,
                format=self._format,
                site=self._site,
                index=self._index - 1,
                number=self._number,
            )

    async def aclose(self) -> None:
        self._reader.close()


class ItemRecords:
    """Records of prompts, or of mappings with one, that Python code makes."""

    def __init__(self, items: Iterable[Any] | AsyncIterable[Any], site: str) -> None:
        self._total = len(items) if isinstance(items, Sized) else None
        self._items = fanout.PromptSource(items)
        self._site = site
        self._index = 0

    def open(self) -> None:
        pass

    def is_file(self, path: str) -> bool:  # noqa: ARG002 - as of any records
        return False

    async def count(self) -> int | None:
        return self._total

    async def next(self) -> Record | None:
        if not self._index % _PAUSE:
            await checkpoint()
        item: Any = await self._items.next()
        if item is fanout.END:
            return None
        self._index += 1
        return record_of_item(item, site=self._site, index=self._index - 1)

    async def aclose(self) -> None:
        await self._items.aclose()


def _format_of(line: bytes | LongLine) -> Format:
    if isinstance(line, LongLine):
        return "jsonl"  # asks nothing that was not meant
    return "jsonl" if line.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") else "text"
