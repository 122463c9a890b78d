"""`run_batch`: one batch, in the caller's event loop."""

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
from ._run_options import RunOptions
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
    any_site: bool = False,
    adaptive: bool = True,
    limit: int | None = None,
    give_up_after: int | None = 100,
    on_progress: Callable[[BatchSummary], object] | None = None,
    on_bad_line: Callable[[int, str], object] | None = None,
    stop: anyio.Event | None = None,
    grace: float = 10.0,
) -> BatchSummary:
    """Ask every prompt of `source`, and write each outcome as a line of `sink`.

    A later run with the same arguments asks only the prompts that have no line yet, however the
    earlier run ended. A prompt is identified by its key, made of its site and messages. Lines of
    the source may be moved, added and removed between runs. A prompt that occurs three times gets
    three lines. Lines of prompts that are no longer in the source are kept.

    A line is a JSON object with these fields:

    - `id`: The record's `id`, or null.
    - `index`: The position of the prompt in the source, counted from 0.
    - The record's other fields. A name that is used otherwise gets the prefix `input_`.
    - `text`, `finish_reason` and `usage` (`input_tokens` and `output_tokens`). The last two are
      null if the API does not report them. After a failure, `error` instead (`type`, `message` and
      `partial_text`).
    - `timing`: The reply's timing, or null after a failure.
    - `key` and `site`.

    With `format="openai"`, it is a line of OpenAI's batch files, with `index`, `key` and `site`
    added. Lines are in the order in which the prompts ended.

    A line is written within 50 ms of its reply, and synced to the disk within `sync_every`. A crash
    loses at most the lines since then; the next run removes an incomplete line. If `sink` is
    renamed or removed meanwhile, the run ends with an error that says where its lines are. The
    lines of a removed file are written again.

    Memory holds the prompts in flight, a block of the source, at most 8 MiB of lines to write, and
    16 bytes for each line that `sink` held at the start.

    Cancellation cancels the running prompts, which the next run asks again. It waits until the
    other outcomes are written and synced.

    :param client: The client or fleet, which the caller closes.
    :param source: A path or binary file (`sys.stdin.buffer`) of JSON lines or of prompts, or a sync
        or async iterable of prompts or mappings. JSON objects and mappings have `prompt` or
        `messages`, and any other fields. The source is read as needed. Blank lines are skipped. A
        line of more than 16 MiB is invalid.
    :param sink: The path of the output.
    :param max_at_once: Maximum number of prompts in flight. `None` for the limiter's, or 16.
    :param max_per_second: Maximum number of starts per second, including retries. `None` for no
        limit.
    :param limiter: A limiter that other batches or fan-outs may share, in place of one for this
        batch.
    :param timeouts: Overrides the client's timeouts, field by field.
    :param sync_every: Time between two syncs to the disk, in seconds.
    :param retry_failed: Ask failed prompts again. The new line replaces the failed one. Failed
        lines of prompts that are no longer in the source are kept.
    :param format: `"jsonl"`, `"text"`, or `"openai"` for the input and output files of OpenAI's
        batch API and of `vllm run-batch`. `None` to detect it: the suffixes `.jsonl`, `.ndjson` and
        `.json` mean JSON lines, any other suffix text. An open file is JSON lines if it begins with
        `{`.
    :param site: The site's name in the keys. `None` for its URL and model, or for those of a
        fleet, sorted and separated by spaces. Give a name if the site may move, or the fleet
        change.
    :param any_site: Accept lines of other sites. Otherwise, their prompts are asked again, and
        `BatchSummary.other_sites` has the number of these lines.
    :param adaptive: Adapt `max_at_once` to what the site accepts; see `Limiter`. Ignored with a
        `limiter`.
    :param limit: Maximum number of prompts that this run asks. `None` for no limit.
    :param give_up_after: Number of consecutive failures after which the run ends as by `stop`, and
        `BatchSummary.gave_up` says why. `None` for no limit. An interrupted reply, or a status that
        refuses one prompt, ends the series, as it shows that the site works. If the run is given
        up, prompts that the site has not read are not recorded: without a connection, or refused
        for the key or a rate limit.
    :param on_progress: Called with the summary so far, four times a second and at the end of the
        run, even if it fails.
    :param on_bad_line: Called with the number of each invalid line, and the reason. The line is
        recorded as failed.
    :param stop: Event that stops the run: no more prompts are started.
    :param grace: Time that running prompts have after a stop, in seconds. `math.inf` for no limit.
    :raises OutputBusyError: If another run is writing `sink`.
    :raises OutputError: If `sink` is the source or not a regular file, has lines that no batch
        wrote, or was moved or removed during the run. A file with other lines is left unchanged.
    :raises OSError: If the source cannot be read, or the sink cannot be written.
    :raises ValueError: If an argument is invalid. The message names it.
    :raises Exception: Any exception of a callback or an iterable. Running prompts end first,
        unless `on_progress` raised it.
    """
    if not sync_every >= 0:
        raise ValueError("sync_every must be a number of seconds, at least 0")
    if not grace >= 0:
        raise ValueError("grace must be a number of seconds, at least 0")
    options = RunOptions(
        retry_failed=retry_failed, any_site=any_site, give_up_after=give_up_after, limit=limit
    )
    name = _name_of(client) if site is None else site
    records = records_of(source, format, name)
    journal = Journal(sink, sync_every=sync_every, openai=format == "openai")
    if limiter is None:
        limiter = Limiter(
            max_at_once=max_at_once or 16, max_per_second=max_per_second, adaptive=adaptive
        )
        max_per_second = None
    elif not isinstance(limiter, Limiter):
        raise ValueError(f"limiter must be a Limiter or None, not {type(limiter).__name__}")
    at_once = max_at_once or limiter.max_at_once or 16
    batch = Runner(records, journal, on_bad_line, limiter, at_once, site=name, options=options)
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
        background: list[Callable[[], Awaitable[None]]] = [
            journal.keep_written,
            partial(batch.stop_at, batch.given_up, grace),
        ]
        if on_progress is not None:
            background += [batch.count, partial(batch.report, on_progress)]
        if stop is not None:
            background += [partial(batch.stop_at, stop, grace)]
        await batch.run(partial(batch.ask_all, outcomes), background)
    finally:
        try:
            try:
                await records.aclose()
            finally:  # closing the caller's iterable may be cancelled
                await journal.aclose()
        finally:
            if on_progress is not None:
                on_progress(batch.summary)
    return batch.summary


def _name_of(client: Client | Fleet) -> str:
    """Return the site's name for keys: its URL and model, or those of a fleet."""
    if isinstance(client, Fleet):
        return " ".join(sorted({_name_of(one) for one in client.clients}))
    return client.url if client.model is None else f"{client.url} {client.model}"
