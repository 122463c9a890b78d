"""The folder of a batch in shards: its plan, and each shard's part file, lock and marker."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from ._batch_errors import OutputBusyError, OutputError
from ._lock import FileLock
from ._recovery import sync_folder
from ._share import share_of
from ._source_files import files_of, fingerprint, names_of
from ._summary import BatchSummary

PLAN: Final = "plan.json"
"""Name of the file that records the division of the batch."""


class ShardPlan(NamedTuple):
    """Division of a batch. It determines which shard asks a prompt."""

    of: int
    """Number of shards."""
    files: list[str]
    """Names of the input files. Empty unless there are several."""


class Shard:
    """One shard of a batch, in a folder that all shards share.

    :raises OutputError: If the folder belongs to a batch with another `of` or other files.
    :raises OSError: If an input file is missing, or the folder cannot be written.
    :raises ValueError: If an argument is invalid.
    """

    def __init__(self, source: Any, folder: str | os.PathLike[str], *, shard: int, of: int) -> None:
        if not isinstance(of, int) or of < 1:
            raise ValueError("of must be the number of shards, at least 1")
        if not isinstance(shard, int) or not 0 <= shard < of:
            raise ValueError(f"shard {shard} of {of}: shards count from 0, so the last is {of - 1}")
        files = files_of(source)
        names = names_of(files)
        self.share = share_of(source, files, names, shard=shard, of=of)
        self._fingerprint = fingerprint([one for _, one in self.share.sources])
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        record_plan(self._folder, ShardPlan(of, names))
        self.path = part_file(self._folder, shard, of)
        """Path of the part file."""
        self._marker = marker_file(self.path)

    def completed(self, *, retry_failed: bool = False) -> BatchSummary | None:
        """Return the summary of a completed shard, or `None` if the shard must run.

        A completed shard must run again if the size or time of its input files has changed, or the
        size of its part file.

        :param retry_failed: Whether the shard must also run if prompts have failed.
        """
        marker = read_marker(self.path)
        if marker is None or self._fingerprint != marker["source"] or self._fingerprint is None:
            return None
        answered, failed = marker["answered"], marker["failed"]
        if retry_failed and failed:
            return None
        return BatchSummary(
            answered=0,
            failed=0,
            answered_before=answered,
            failed_before=failed,
            in_flight=0,
            total=answered + failed,
            complete=True,
            elapsed=0.0,
            characters=0,
            failures={},
            latency=None,
            first_chunk=None,
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Remove the shard's marker, and hold its lock until the end of the block.

        :raises OutputBusyError: If another run holds the lock.
        """
        lock = FileLock(str(self._hidden("lock")))
        if not lock.acquire():
            raise OutputBusyError(f"another run is writing {self.path}; wait for it")
        try:
            self._marker.unlink(missing_ok=True)
            yield
        finally:
            lock.release()

    def mark(self, summary: BatchSummary) -> None:
        """Mark the shard as completed. Call this within `locked`.

        :param summary: The summary of the run that completed it.
        """
        marker = {
            "answered": summary.answered + summary.answered_before,
            "failed": summary.failed + summary.failed_before,
            "size": self.path.stat().st_size,
            "source": self._fingerprint,
        }
        new = self._hidden("new")
        write_synced(new, marker)
        new.replace(self._marker)
        sync_folder(str(self._marker))

    def _hidden(self, kind: str) -> Path:
        return self._folder / f".{self.path.stem}.gprochat-{kind}"


def part_file(folder: Path, shard: int, of: int) -> Path:
    """Return the path of a shard's part file."""
    return folder / f"part-{shard:05}-of-{of:05}.jsonl"


def marker_file(part: Path) -> Path:
    """Return the path of the file that marks a shard as completed."""
    return part.with_suffix(".done.json")


def read_marker(part: Path) -> dict[str, Any] | None:
    """Return a shard's marker, or `None` if it is missing or the part file's size has changed."""
    try:
        marker: dict[str, Any] = json.loads(marker_file(part).read_bytes())
        return marker if part.stat().st_size == marker["size"] else None
    except FileNotFoundError:
        return None


def read_plan(folder: Path) -> ShardPlan:
    """Return the plan of the batch in a folder.

    :raises FileNotFoundError: If the folder does not hold a batch in shards.
    """
    return ShardPlan(**json.loads((folder / PLAN).read_bytes()))


def record_plan(folder: Path, plan: ShardPlan) -> None:
    """Write the plan, unless another shard has written it.

    :raises OutputError: If the folder has another plan.
    """
    if not (folder / PLAN).exists():
        new = folder / f".{PLAN}.{os.urandom(8).hex()}.gprochat-new"
        write_synced(new, plan._asdict())
        try:
            with suppress(FileExistsError):
                (folder / PLAN).hardlink_to(new)  # atomic, and does not replace a plan
        finally:
            new.unlink()
        sync_folder(str(folder / PLAN))
    before = read_plan(folder)
    if before.of != plan.of:
        raise OutputError(
            f"{folder} was begun with {before.of} shards, not {plan.of}; "
            f"continue with {before.of}, or name another folder"
        )
    if before.files != plan.files:
        raise OutputError(
            f"{folder} was begun with {_difference(before.files, plan.files)}; "
            "give the same files in the same order, or name another folder"
        )


def write_synced(path: Path, value: object) -> None:
    """Write a value as JSON to a file, and sync it to the disk."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())


def _difference(before: Sequence[str], now: Sequence[str]) -> str:
    if added := sorted({*now} - {*before}):
        return f"other input files: {added[0]} is new"
    if gone := sorted({*before} - {*now}):
        return f"other input files: {gone[0]} is missing"
    return "the input files in another order"
