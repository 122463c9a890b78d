"""Shares: the files of a source that one shard reads, and the keys that it asks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from anyio import to_thread

if TYPE_CHECKING:
    from ._input import Records
    from ._records import Record


class Share(NamedTuple):
    """Part of a source that one shard asks."""

    sources: tuple[tuple[str | None, Any], ...]
    """Names and sources. The names are `None` unless there are several files."""
    rank: int
    """Remainder of the share's keys modulo `sharers`."""
    sharers: int
    """Number of shards that read these sources."""

    def has(self, key: str) -> bool:
        """Return True if the prompt with that key belongs to this share."""
        return int(key, 16) % self.sharers == self.rank


def share_of(
    source: Any, files: Sequence[str] | None, names: Sequence[str], *, shard: int, of: int
) -> Share:
    """Return the share of one shard.

    With at least as many files as shards, each shard has whole files. With fewer, the shards of a
    file divide its prompts by key. No shard reads another one's files.

    :param files: The files of the source. `None` for a source without files.
    :param names: The files' names. Empty unless there are several.
    """
    everything = [source] if files is None else files
    labels: Sequence[str | None] = names or [None] * len(everything)
    named = list(zip(labels, everything, strict=True))
    groups = min(len(named), of)
    group = shard % groups
    return Share(
        sources=tuple(named[group::groups]),
        rank=shard // groups,
        sharers=len(range(group, of, groups)),
    )


class ShareRecords:
    """Records of a share. At most one of its files is open.

    :param parts: The records of each source.
    """

    def __init__(self, parts: Iterable[Records], share: Share) -> None:
        self._parts = deque(parts)
        self._share = share
        self._all = tuple(self._parts)

    def open(self) -> None:
        self._parts[0].open()

    def is_file(self, path: str) -> bool:
        return any(part.is_file(path) for part in self._all)

    async def count(self) -> int | None:
        if self._share.sharers > 1:  # counting would need every prompt's key
            return None
        total = 0
        for part in self._all:
            count = await part.count()
            if count is None:
                return None
            total += count
        return total

    async def next(self) -> Record | None:
        while self._parts:
            while (record := await self._parts[0].next()) is not None:
                if self._share.has(record.key):
                    return record
            await self._parts.popleft().aclose()
            if self._parts:
                await to_thread.run_sync(self._parts[0].open)
        return None

    def next_ready(self) -> Record | None:
        while self._parts and (record := self._parts[0].next_ready()) is not None:
            if self._share.has(record.key):
                return record
        return None

    async def aclose(self) -> None:
        while self._parts:
            await self._parts.popleft().aclose()
