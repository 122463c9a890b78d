"""Merging of a sharded batch's part files into one file."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._batch_errors import OutputBusyError, OutputError
from ._line_order import LineOrder, LinePlace
from ._lock import FileLock
from ._part_lines import PartLine, PartReader, lines_of
from ._recovery import state_of, sync_folder
from ._shards import ShardPlan, part_file, read_marker, read_plan


@dataclass(frozen=True, slots=True)
class MergeSummary:
    """Counts of a merged file."""

    shards: int
    """Number of shards."""
    answered: int
    """Number of lines with a reply."""
    failed: int
    """Number of lines with an error."""
    missing: Mapping[int, int]
    """Number of lines of each shard that is not completed, by shard."""
    surplus: int
    """Number of completed shards' lines whose prompts were no longer in the source."""

    @property
    def complete(self) -> bool:
        """True if every prompt has a line."""
        return not self.missing

    @property
    def all_answered(self) -> bool:
        """True if every prompt has a reply."""
        return self.complete and not self.failed


def merge_shards(
    folder: str | os.PathLike[str], sink: str | os.PathLike[str], *, ordered: bool = False
) -> MergeSummary:
    """Write the lines of all shards to one file, one line for each prompt. This blocks.

    Shards that are not completed, or still running, contribute their lines so far. The summary
    names them. The file replaces one at its path once it is complete and on the disk.

    Memory does not grow with the number of lines. Sorting reads the parts twice, and needs 28
    bytes for each line in the folder of `sink`.

    :param folder: The folder of the shards' output, as for `run_shard`.
    :param sink: The path of the merged file.
    :param ordered: Sort the lines by their prompts' input file, and position in it.
    :raises OutputError: If `folder` does not hold a sharded batch, a part has lines that no batch
        wrote, or `sink` is a part or not a batch's output. `sink` is left unchanged.
    :raises OutputBusyError: If another run is writing `sink`.
    :raises OSError: If a file cannot be read or written.
    """
    folder = Path(folder)
    try:
        plan = read_plan(folder)
    except FileNotFoundError:
        raise OutputError(f"{folder} does not hold a batch in shards; name its folder") from None
    target = Path(os.path.realpath(sink))
    new = target.with_name(f".{target.name}.gprochat-new")
    lock = FileLock(str(target.with_name(f".{target.name}.gprochat-lock")))
    if not lock.acquire():
        raise OutputBusyError(f"another run is writing {target}; wait for it")
    try:
        _check_target(target, folder, plan)
        merging = _Merging(folder, plan)
        lines = merging.ordered(target.parent) if ordered else merging.unordered()
        with new.open("wb") as file, closing(lines):
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        new.replace(target)
        sync_folder(str(target))
    finally:
        new.unlink(missing_ok=True)
        lock.release()
    return merging.summary()


class _Merging:
    """Reader of all parts that counts their lines. It reads them once."""

    def __init__(self, folder: Path, plan: ShardPlan) -> None:
        self._shards = plan.of
        self._positions = {name: number for number, name in enumerate(plan.files)}
        paths = [part_file(folder, shard, plan.of) for shard in range(plan.of)]
        self._parts = {shard: path for shard, path in enumerate(paths) if path.exists()}
        self._markers = {shard: read_marker(path) for shard, path in self._parts.items()}
        self._lines = dict.fromkeys(range(plan.of), 0)
        self._failed = 0

    def unordered(self) -> Generator[bytes]:
        for _, line in self._all():
            yield line.data

    def ordered(self, scratch: Path) -> Generator[bytes]:
        with closing(PartReader(self._parts)) as reader, closing(LineOrder(scratch)) as order:
            for shard, line in self._all():
                file = self._positions[line.facts.file] if self._positions else 0
                place = LinePlace(file, line.facts.position, shard, line.offset, line.length)
                order.add(place)
            for place in order.sorted():
                yield reader.read(place.part, place.offset, place.length)

    def summary(self) -> MergeSummary:
        missing: dict[int, int] = {}
        surplus = 0
        for shard, lines in self._lines.items():
            more = lines - _prompts(self._markers.get(shard))
            if more < 0 or self._markers.get(shard) is None:
                missing[shard] = lines
            else:
                surplus += more
        answered = sum(self._lines.values()) - self._failed
        return MergeSummary(self._shards, answered, self._failed, missing, surplus)

    def _all(self) -> Iterator[tuple[int, PartLine]]:
        for shard, path in self._parts.items():
            for line in lines_of(path, completed=self._markers[shard] is not None):
                self._lines[shard] += 1
                self._failed += line.facts.state == "failed"
                yield shard, line


def _prompts(marker: Mapping[str, Any] | None) -> int:
    return 0 if marker is None else marker["answered"] + marker["failed"]


def _check_target(target: Path, folder: Path, plan: ShardPlan) -> None:
    """Check that merging would not overwrite anything but a merged file."""
    own = os.path.realpath(folder)
    if str(target.parent) == own and target.name in {
        part_file(folder, shard, plan.of).name for shard in range(plan.of)
    }:
        raise OutputError(f"{target} is one of the parts; name another file")
    if target.exists() and not target.is_file():
        raise OutputError(f"{target} is not a regular file; name another output")
    with suppress(FileNotFoundError), target.open("rb") as file:
        first = file.readline()
        if first and state_of(first)[0] not in {"answered", "failed"}:
            raise OutputError(
                f"{target} is left unchanged: it is not a batch's output; name another file"
            )
