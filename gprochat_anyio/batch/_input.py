"""Sources of a batch's prompts, read one record at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterable, Iterable, Sized
from typing import Any, BinaryIO, Final, Protocol, cast, get_args

from anyio.lowlevel import checkpoint

from gprochat_anyio._fanout import prompts as fanout

from ._lines import LineReader, LongLine, is_blank
from ._records import Format, Record, record_of_item, record_of_line
from ._share import Share, ShareRecords

Source = str | os.PathLike[str] | BinaryIO | Iterable[Any] | AsyncIterable[Any] | Share

_JSON_SUFFIXES: Final = (".jsonl", ".ndjson", ".json")
_PAUSE: Final = 100
"""Number of items after which reading an iterable yields to the event loop."""


class Records(Protocol):
    """Stream of records."""

    def open(self) -> None:
        """Open the source. This blocks."""
        ...

    def is_file(self, path: str) -> bool:
        """Return True if the records are read from the file at that path."""
        ...

    async def count(self) -> int | None:
        """Return the number of records, or `None` if it is unknown."""
        ...

    async def next(self) -> Record | None:
        """Return the next record, or `None` at the end. Do not call it again after cancellation."""
        ...

    def next_ready(self) -> Record | None:
        """Return the next record if it is available without waiting, else `None`."""
        ...

    async def aclose(self) -> None:
        """Close the source. Only the task that calls `next` may call this."""
        ...


def records_of(
    source: Source, format: Format | None, site: str, *, file: str | None = None
) -> Records:
    """Return the records of a source of `run_batch`.

    :param file: The source's name, if there are several.
    :raises ValueError: If the source or the format is invalid.
    """
    if format not in {None, *get_args(Format)}:
        raise ValueError('format must be "jsonl", "text" or "openai", or None to detect it')
    if isinstance(source, Share):
        parts = [records_of(part, format, site, file=name) for name, part in source.sources]
        return ShareRecords(parts, source)
    if isinstance(source, str | os.PathLike):
        jsonl = os.fspath(source).lower().endswith(_JSON_SUFFIXES)
        reader = LineReader(source)
        return FileRecords(reader, format or ("jsonl" if jsonl else "text"), site, file)
    if hasattr(source, "read") and not isinstance(source, AsyncIterable):
        if hasattr(source, "encoding"):
            raise ValueError("source: open the file in binary mode; for stdin, sys.stdin.buffer")
        return FileRecords(LineReader(cast("BinaryIO", source)), format, site)
    return ItemRecords(source, site, format)


class FileRecords:
    """Records of the lines of a file.

    :param format: `None` to detect it from the first line, which is JSON if it begins with `{`.
    :param file: The file's name, if there are several.
    """

    def __init__(
        self, reader: LineReader, format: Format | None, site: str, file: str | None = None
    ) -> None:
        self._reader = reader
        self._file = file
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
        while (record := self.next_ready()) is None:
            lines = await self._reader.next_lines()
            if not lines:
                return None
            self._lines.extend(lines)
        return record

    def next_ready(self) -> Record | None:
        while self._lines:
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
                file=self._file,
            )
        return None

    async def aclose(self) -> None:
        self._reader.close()


class ItemRecords:
    """Records of prompts, or of mappings with a prompt, from a sync or async iterable."""

    def __init__(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        site: str,
        format: Format | None = None,
    ) -> None:
        self._total = len(items) if isinstance(items, Sized) else None
        self._items = fanout.PromptSource(items)
        self._site = site
        self._format: Format | None = format
        self._index = 0

    def open(self) -> None:
        pass

    def is_file(self, path: str) -> bool:  # noqa: ARG002 - the protocol's
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
        return record_of_item(item, site=self._site, index=self._index - 1, format=self._format)

    def next_ready(self) -> Record | None:
        return None

    async def aclose(self) -> None:
        await self._items.aclose()


def _format_of(line: bytes | LongLine) -> Format:
    if isinstance(line, LongLine):
        return "jsonl"  # as text, each further line would be sent as a prompt
    return "jsonl" if line.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") else "text"
