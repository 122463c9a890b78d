"""`run_shard`: one shard of a batch, in an event loop of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypedDict, Unpack

import anyio

from gprochat_anyio import Client, Fleet, Limiter, Timeouts

from ._input import Source
from ._records import Format
from ._run import run_batch
from ._shards import Shard
from ._summary import BatchSummary


class BatchOptions(TypedDict, total=False):
    """Arguments of `run_batch` that a shard passes on."""

    max_at_once: int | None
    max_per_second: float | None
    limiter: Limiter | None
    timeouts: Timeouts | None
    sync_every: float
    retry_failed: bool
    format: Format | None
    site: str | None
    any_site: bool
    adaptive: bool
    limit: int | None
    give_up_after: int | None
    on_bad_line: Callable[[int, str], object] | None
    grace: float


def run_shard(
    make_client: Callable[[], Client | Fleet],
    source: Source,
    folder: str | os.PathLike[str],
    *,
    shard: int,
    of: int,
    backend: Literal["asyncio", "trio"] = "asyncio",
    on_progress: Callable[[BatchSummary], object] | None = None,
    stop: Callable[[], bool] | None = None,
    **options: Unpack[BatchOptions],
) -> BatchSummary:
    """Run one shard of a batch, in an event loop of its own. This blocks until the shard has ended.

    Call this once for each of the `of` shards, in any processes, on any machines that share
    `source` and `folder`. As with `run_batch`, a later call with the same arguments asks only the
    prompts that have no line yet.

    A completed shard returns immediately, without a client. Its summary counts all prompts as
    answered or failed before. It runs again if

    - the size or the time of its input files has changed, or the items of a list;
    - `source` is an iterable or an open file, which must be read to find changes;
    - `retry_failed` is set, and some prompts have failed.

    A prompt belongs to shard `key % of`, where `key` is the key of its line as a number. Duplicates
    therefore share a shard, and each gets a line. Several input files are first dealt to the
    shards, in order. With at least `of` files, each shard has whole files. With fewer, the shards
    of a file divide its prompts by key. A shard reads only its own files. A prompt that occurs in
    several files gets a line for each.

    In `folder`, `part-00002-of-00008.jsonl` has the lines of shard 2 of 8, as `run_batch` writes
    them. `part-00002-of-00008.done.json` marks it as completed. With several input files, a line's
    `file` is the name of the prompt's file, and its `index` the position in that file. `plan.json`
    has the number of shards and the names of the files. The file system must support locks and hard
    links. `merge_shards` merges the parts.

    :param make_client: Function without arguments that returns a client or fleet. It is called only
        if the shard is not completed, and its client is closed at the end. To run shards in other
        processes, give a module's function that reads keys from the environment.
    :param source: A path, a pattern such as `"prompts/*.jsonl"`, or a list of `Path` objects. Each
        shard reads all of any other source of `run_batch`.
    :param folder: The folder of all shards' output, created if it is missing.
    :param shard: The shard, from 0 to `of - 1`.
    :param of: The number of shards, the same for every run with this folder.
    :param backend: The event loop.
    :param on_progress: See `run_batch`.
    :param stop: Called four times a second, in the event loop. Once it returns true, no more
        prompts are started. Running prompts have `grace` seconds.
    :param options: Arguments of `run_batch`: `max_at_once`, `max_per_second`, `limiter`,
        `timeouts`, `sync_every`, `retry_failed`, `format`, `site`, `any_site`, `adaptive`, `limit`,
        `give_up_after`, `on_bad_line` and `grace`. Limits apply to this call: divide the site's
        limits by the number of concurrent calls.
    :raises OutputBusyError: If another process runs this shard.
    :raises OutputError: If `folder` belongs to a batch with another `of` or other files, or a part
        file has lines that no batch wrote.
    :raises OSError: If the source cannot be read, or the folder cannot be written.
    :raises ValueError: If an argument is invalid. The message names it.
    :raises Exception: See `run_batch`.
    """
    one = Shard(source, folder, shard=shard, of=of)
    if before := one.completed(retry_failed=options.get("retry_failed", False)):
        return before
    with one.locked():
        run = partial(_run, one, make_client, on_progress, stop, options)
        summary = anyio.run(run, backend=backend)
        if summary.complete:
            one.mark(summary)
    return summary


async def _run(
    shard: Shard,
    make_client: Callable[[], Client | Fleet],
    on_progress: Callable[[BatchSummary], object] | None,
    stop: Callable[[], bool] | None,
    options: Any,
) -> BatchSummary:
    stopped = anyio.Event()

    def observe(summary: BatchSummary) -> None:
        if stop is not None and stop():
            stopped.set()
        if on_progress is not None:
            on_progress(summary)

    async with make_client() as client:
        return await run_batch(
            client, shard.share, shard.path, on_progress=observe, stop=stopped, **options
        )
