"""Running a batch."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
from anyio import to_thread

from gprochat_anyio import Client, Fleet, Limiter, Timeouts, as_completed

from ._batch_errors import OutputError
from ._input import Source, records_of
from ._journal import Journal
from ._records import Format
from ._runner import Runner
from ._summary import BatchSummary


async def run_batch(
    client: Client | Fleet,
    source: Source,
    sink: str | os.PathLike[str],
    *,
    max_at_once: int | None = None,
    max_per_second: float | None = None,
    limiter: Limiter | None = None,
    timeouts: Timeouts | None = None,
    sync_every: float = 1.0,
    retry_failed: bool = False,
    format: Format | None = None,
    site: str | None = None,
    on_progress: Callable[[BatchSummary], object] | None = None,
    on_bad_line: Callable[[int, str], object] | None = None,
    stop: anyio.Event | None = None,
    grace: float = 10.0,
) -> BatchSummary:
    """Ask every prompt of `source`, and keep each outcome as a line of `sink`.

    Run again with the same arguments, after whatever end, it asks what has no line yet. A prompt
    is known by its key, which is made of the site and its messages, and by how often it occurs:
    lines of the source may move, come and go between runs, and a prompt that is there three times
    gets three lines. Lines of prompts that the source no longer has stay.

    A line of `sink` is a JSON object with `id` (null if there was none), `index` (counts the
    prompts of the source from 0), the record's other fields (`input_` before the name of one that
    would be in the way), `text`, `finish_reason` and `usage` (`input_tokens`, `output_tokens`; each
    null if the API does not say) or `error` (`type`, `message`, `partial_text`), `timing` (null
    after an error) and `key`. They are in the order in which the prompts ended. A line is with the
    system 50 ms after its reply, and on the disk after `sync_every`; a kill in between costs that
    much, and what it leaves of a line is removed by the next run. Two runs with one sink are
    refused.

    Memory: what is in flight, a block of the source, 8 MiB of lines to write at the most, and
    16 bytes for each line that `sink` held at the start.

    Cancelled, it gives the running prompts up, which the next run asks again, and keeps and syncs
    the others before it leaves.

    :param source: a path, or a binary file (`sys.stdin.buffer`), of JSON lines (objects with
        `prompt` or `messages`, and any other fields) or of prompts; or a sync or async iterable of
        prompts or such mappings. Read as they are needed; blank lines are left out, and one of
        more than 16 MiB is bad.
    :param sink: the path of the output
    :param max_at_once: how many prompts to ask at once, at the most; None is the limiter's, or 16
    :param max_per_second: how many requests to start in a second, at the most, retries included
    :param limiter: limits this batch together with others, in the place of a limiter of its own
    :param timeouts: override the client's, field by field
    :param sync_every: seconds between two syncs to the disk
    :param retry_failed: ask those again whose line is an error; such lines are taken out first
    :param format: `"jsonl"` or `"text"`; None: by the suffix of a path (`.jsonl`, `.ndjson` and
        `.json` are JSON lines), by the first character of another file (`{`)
    :param site: The name of the site in the keys. None is its URL, or the URLs of a fleet, sorted
        and with spaces between. Give a name for a site that moves, or a fleet that changes.
    :param on_progress: called with the summary so far, four times a second and at the end,
        however that comes
    :param on_bad_line: called with the number of a line that holds no prompt, and why. Such a
        line is recorded as failed.
    :param stop: once it is set, no prompt is started any more
    :param grace: seconds that the running ones have then; `math.inf`: as long as they need
    :raises OutputBusyError: if another run is writing `sink`
    :raises OutputError: if `sink` holds other lines than ours, or is the source; it is left as is
    :raises OSError: if the source can not be read, or the sink not written
    :raises ValueError: for an argument that can not be
    :raises Exception: what a callback or an iterable raises; what is running ends first, unless
        it was `on_progress`
    """
    if not sync_every >= 0:
        raise ValueError("sync_every is a number of seconds, 0 or more")
    if not grace >= 0:
        raise ValueError("grace is a number of seconds, 0 or more")
    name = _name_of(client) if site is None else site
    records = records_of(source, format, name)
    journal = Journal(sink, sync_every=sync_every, retry_failed=retry_failed)
    if limiter is None:
        limiter = Limiter(max_at_once=max_at_once or 16, max_per_second=max_per_second)
        max_per_second = None
    elif not isinstance(limiter, Limiter):
        raise ValueError(f"limiter must be a Limiter or None, not {type(limiter).__name__}")
    at_once = max_at_once or limiter.max_at_once or 16
    batch = Runner(records, journal, on_bad_line, limiter, at_once)
    outcomes = as_completed(
        client,
        batch.prompts(),
        max_at_once=max_at_once,
        max_per_second=max_per_second,
        limiter=limiter,
        timeouts=timeouts,
    )
    try:
        await to_thread.run_sync(records.open)
        if records.is_file(journal.path):
            raise OutputError("the output is the input itself; name another file")
        await to_thread.run_sync(journal.open)
        background: list[Callable[[], Awaitable[None]]] = [journal.keep_written]
        if on_progress is not None:
            background += [batch.count, partial(batch.report, on_progress)]
        if stop is not None:
            background += [partial(batch.stop_at, stop, grace)]
        await batch.run(partial(batch.ask_all, outcomes), background)
    finally:
        try:
            try:
                await records.aclose()
            finally:  # cancelled while it closes an iterable of the caller's, too
                await journal.aclose()
        finally:
            if on_progress is not None:
                on_progress(batch.summary)
    return batch.summary


def _name_of(client: Client | Fleet) -> str:
    """Return the name of who is asked, for keys: another model gives other replies."""
    if isinstance(client, Fleet):
        return " ".join(sorted({_name_of(one) for one in client.clients}))
    return client.url if client.model is None else f"{client.url} {client.model}"
