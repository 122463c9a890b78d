"""`gprochat batch` over many machines: `--shard` and `--merge`."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import click

from gprochat_anyio.batch import BatchSummary, MergeSummary, merge_shards
from gprochat_anyio.batch._shards import Shard

from ._exit_codes import FAILED, say

_SHARDS_SHOWN = 10


class ShardNumber(NamedTuple):
    """Value of `--shard`."""

    shard: int
    of: int


def shard_number(_: click.Context, __: click.Parameter, value: str | None) -> ShardNumber | None:
    """Return the value of `--shard I/N`. I counts from 0, as the indexes of job arrays do.

    :raises click.BadParameter: If the value is invalid.
    """
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", value, re.ASCII)
    if found is None:
        raise click.BadParameter(f"{value!r} is not I/N, as in 0/8.")
    shard, of = map(int, found.groups())
    if shard >= of:
        known = f"0/{of} to {of - 1}/{of}" if of else "0/N to (N - 1)/N"
        raise click.BadParameter(f"{value!r} is out of range: shards are {known}.")
    return ShardNumber(shard, of)


class InputType(click.Path):
    """An existing file, `-`, or a pattern."""

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False, allow_dash=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if _is_pattern(value) else super().convert(value, param, ctx)


def check_usage(ctx: click.Context) -> None:
    """Check the arguments that exclude or need each other.

    :raises click.UsageError: If they contradict each other.
    """
    inputs, shard = ctx.params["inputs"], ctx.params["shard"]
    if ctx.params["merge"] is not None:
        if inputs or shard:
            raise click.UsageError("--merge takes neither INPUT nor --shard.")
        return
    if ctx.params["ordered"]:
        raise click.UsageError("--ordered needs --merge.")
    if not inputs:
        raise click.UsageError("Missing argument 'INPUT'.")
    if len(inputs) > 1 and "-" in inputs:
        raise click.UsageError("give files, or - for stdin, not both.")
    if not shard and ctx.params["ray"] is None and (len(inputs) > 1 or _is_pattern(inputs[0])):
        raise click.UsageError(
            "several files need --shard or --ray; to ask all of them here, give --shard 0/1."
        )


def ask_shard(
    number: ShardNumber,
    source: tuple[str, ...] | str | BinaryIO,
    folder: str,
    ask: Callable[[Any, Path], tuple[int, BatchSummary | None]],
    *,
    retry_failed: bool,
    quiet: bool,
) -> int:
    """Run one shard unless it is completed, and return the exit status.

    :param ask: Runs a batch from a source to a file. Returns its exit status and summary.
    """
    paths = [Path(path) for path in source] if isinstance(source, tuple) else source
    shard = Shard(paths, folder, shard=number.shard, of=number.of)
    if before := shard.completed(retry_failed=retry_failed):
        if not quiet:
            counts = f"{before.answered_before:,} answered, {before.failed_before:,} failed"
            say(f"shard {number.shard}/{number.of} is completed: {counts}")
        return 0 if before.all_answered else FAILED
    with shard.locked():
        status, summary = ask(shard.share, shard.path)
        if summary is not None and summary.complete:
            shard.mark(summary)
    return status


def merge_to(out: str, folder: str, *, ordered: bool, quiet: bool) -> int:
    """Merge the shards of a folder, and return the exit status."""
    summary = merge_shards(folder, out, ordered=ordered)
    for line in _missing(summary, folder):
        say(line)
    if not quiet:
        say(
            f"{summary.answered + summary.failed:,} lines of {summary.shards:,} shards: "
            f"{summary.answered:,} answered, {summary.failed:,} failed"
        )
        if summary.surplus:
            say(f"{summary.surplus:,} of them belong to prompts that the input no longer has")
    return 0 if summary.all_answered else FAILED


def _is_pattern(path: str) -> bool:
    return glob.has_magic(path) and not Path(path).exists()


def _missing(summary: MergeSummary, folder: str) -> list[str]:
    shown = list(summary.missing.items())[:_SHARDS_SHOWN]
    lines = [
        f"shard {shard}/{summary.shards} is not completed: {lines:,} lines so far"
        for shard, lines in shown
    ]
    if more := len(summary.missing) - len(shown):
        lines.append(f"{more:,} more shards are not completed")
    if lines:
        lines.append(f"run these shards with --out {folder}, then merge again")
    return lines
