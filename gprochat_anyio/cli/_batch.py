"""`gprochat batch`: many prompts, each outcome kept in a file."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

import anyio
import click

from gprochat_anyio.batch import BatchSummary, OutputError, ShardLostError

from ._batch_ray import check_ray_usage, cluster_of, connected
from ._batch_run import BatchRun, progress_of
from ._batch_shards import InputType, ShardNumber, ask_shard, check_usage, merge_to, shard_number
from ._exit_codes import FAILED, USAGE, say
from ._options import (
    SECONDS,
    hidden_help_option,
    model_option,
    site_option,
    timeout_options,
    url_option,
)
from ._site import Site
from ._sites import one_site

_SETTINGS: Final = (
    *("format", "max_at_once", "max_per_second", "sync_every", "retry_failed", "grace"),
    *("any_site", "limit", "give_up_after", "adaptive"),
)
_EPILOG: Final = """\b
Also: --limit, --give-up-after, --any-site, --no-adaptive, --sync-every; on
clusters: --shard, --merge, --ray; as for ask: --model-name, --base-url,
--secret-key, --password, --proxy, --backend, --timeout-connect and the like.
Exit status: 0 all answered; 1 some failed; 2 usage or output; 130 Ctrl-C."""


def _or_never(_: click.Context, __: click.Parameter, value: int) -> int | None:
    return value or None


@click.command(epilog=_EPILOG, short_help="Ask every prompt of a file; keep each outcome.")
@click.argument("inputs", metavar="INPUT", nargs=-1, type=InputType())
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(),
    required=True,
    help="Append JSON lines to FILE; it may exist.",
)
@click.option(
    "--format",
    metavar="FORMAT",
    type=click.Choice(["jsonl", "text", "openai"]),
    help="jsonl, text or openai (default: by name or content).",
)
@click.option(
    "--max-at-once",
    metavar="N",
    type=click.IntRange(min=1),
    default=16,
    help="Ask at most N at once (default 16).",
)
@click.option(
    "--max-per-second",
    metavar="N",
    type=click.FloatRange(min=0, min_open=True),
    help="Start at most N prompts a second.",
)
@click.option("--retry-failed", is_flag=True, help="Ask the prompts again that have failed.")
@click.option(
    "--grace",
    metavar="SECONDS",
    type=SECONDS,
    default=10.0,
    help="After Ctrl-C, let replies end (default 10).",
)
@click.option("--quiet", is_flag=True, help="Show no progress and no summary.")
@site_option()
@url_option("Ask this site (or set GPROCHAT_URL).")
@model_option()
@click.option("--model-name", hidden=True)
@click.option("--base-url", hidden=True)
@click.option("--secret-key", hidden=True)
@click.option("--password", hidden=True)
@click.option("--proxy", hidden=True)
@click.option("--backend", type=click.Choice(["asyncio", "trio"]), default="trio", hidden=True)
@click.option("--sync-every", type=SECONDS, default=1.0, hidden=True)
@click.option("--any-site", is_flag=True, hidden=True)
@click.option("--limit", type=click.IntRange(min=1), hidden=True)
@click.option(
    "--give-up-after", type=click.IntRange(min=0), default=100, callback=_or_never, hidden=True
)
@click.option("--adaptive/--no-adaptive", default=True, hidden=True)
@click.option("--shard", callback=shard_number, hidden=True)
@click.option("--merge", type=click.Path(exists=True, file_okay=False), hidden=True)
@click.option("--ordered", is_flag=True, hidden=True)
@click.option("--ray", is_flag=False, flag_value="", hidden=True)
@click.option("--shards", type=click.IntRange(min=1), hidden=True)
@timeout_options
@hidden_help_option
@click.pass_context
def batch(
    ctx: click.Context,
    /,
    *,
    inputs: tuple[str, ...],
    out: str,
    shard: ShardNumber | None,
    merge: str | None,
    ordered: bool,
    backend: str,
    retry_failed: bool,
    ray: str | None,
    quiet: bool,
    **_: Any,
) -> None:
    """Ask every prompt of INPUT, a file or - for stdin; keep each outcome in FILE.

    A line of INPUT is a prompt, or JSON with "prompt" or "messages". After an
    interruption, run the same command again: it asks what FILE lacks.
    """
    check_usage(ctx)
    check_ray_usage(ctx)

    try:
        if merge is not None:
            status = merge_to(out, merge, ordered=ordered, quiet=quiet)
        else:
            ask = partial(_ask, ctx, one_site(ctx), backend=backend, quiet=quiet)
            if shard is not None:
                source = _opened("-") if inputs == ("-",) else inputs
                status = ask_shard(shard, source, out, ask, retry_failed=retry_failed, quiet=quiet)
            else:
                paths = [Path(path) for path in inputs]
                with connected(ray):
                    status, _summary = ask(_opened(inputs[0]) if ray is None else paths, out)
    except (OutputError, ValueError) as error:
        say(str(error))
        ctx.exit(USAGE)
    except (ImportError, ShardLostError) as error:
        say(str(error))
        ctx.exit(FAILED)
    except OSError as error:
        place = "" if error.filename is None else f"{error.filename}: "
        say(f"{place}{error.strerror or error}")
        ctx.exit(FAILED)
    ctx.exit(status)


def _ask(
    ctx: click.Context, site: Site, source: Any, out: str | Path, *, backend: str, quiet: bool
) -> tuple[int, BatchSummary | None]:
    settings = {key: ctx.params[key] for key in _SETTINGS}
    with progress_of(quiet=quiet) as progress:
        running = BatchRun(
            source, site, progress, out=out, cluster=cluster_of(ctx), backend=backend, **settings
        )
        return anyio.run(running.run, backend=backend), running.summary


def _opened(source: str) -> str | BinaryIO:
    if source != "-":
        return source
    if sys.stdin is None:
        raise click.UsageError("there is no stdin to read.")
    return sys.stdin.buffer
