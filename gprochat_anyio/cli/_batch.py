"""`gprochat batch`: many prompts, each outcome kept in a file."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import anyio
import click

from gprochat_anyio.batch import BatchSummary, OutputError, run_batch

from ._ctrl_c import INTERRUPTED, CtrlC
from ._exits import FAILED, USAGE, say
from ._inside import opened_client
from ._options import model_option, site_option
from ._site import Site
from ._sites import one_site

if TYPE_CHECKING:
    from ._progress import Progress

_SETTINGS: Final = (
    *("out", "format", "max_at_once", "max_per_second", "sync_every", "retry_failed", "grace"),
)
_EPILOG: Final = """\b
As for ask: --model-name, --secret-key, --password, --proxy, --backend,
--timeout-connect, --timeout-first-chunk, --timeout-idle, --timeout-total.
Exit status: 0 all answered; 1 some failed; 2 usage or output; 130 Ctrl-C."""

_seconds = click.FloatRange(min=0)


@click.command(epilog=_EPILOG, short_help="Ask every prompt of a file; keep each outcome.")
@click.argument(
    "source", metavar="INPUT", type=click.Path(exists=True, dir_okay=False, allow_dash=True)
)
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(),
    required=True,
    help="JSON lines; continued if it exists.",
)
@click.option(
    "--format",
    type=click.Choice(["jsonl", "text"]),
    help="Of INPUT, if not told by .jsonl or stdin's first {.",
)
@click.option(
    "--max-at-once", metavar="N", type=click.IntRange(min=1), default=16, help="[default: 16]"
)
@click.option(
    "--max-per-second", metavar="N", type=click.FloatRange(min=0, min_open=True), help="Starts."
)
@click.option(
    "--sync-every", metavar="SECONDS", type=_seconds, default=1.0, help="To the disk.  [default: 1]"
)
@click.option("--retry-failed", is_flag=True, help="Ask those again whose line is an error.")
@click.option(
    "--grace",
    metavar="SECONDS",
    type=_seconds,
    default=10.0,
    help="To end after Ctrl-C.  [default: 10]",
)
@click.option("--quiet", is_flag=True, help="No progress, no summary.")
@site_option()
@click.option("--url", "--base-url", "url", metavar="URL", help="The site; or set GPROCHAT_URL.")
@model_option()
@click.option("--model-name", hidden=True)
@click.option("--secret-key", hidden=True)
@click.option("--password", hidden=True)
@click.option("--proxy", hidden=True)
@click.option("--backend", type=click.Choice(["asyncio", "trio"]), default="trio", hidden=True)
@click.option("--timeout-connect", type=float, hidden=True)
@click.option("--timeout-first-chunk", type=float, hidden=True)
@click.option("--timeout-idle", type=float, hidden=True)
@click.option("--timeout-total", type=float, hidden=True)
@click.help_option("--help", hidden=True)  # whoever sees the screen that this fills knows it
@click.pass_context
def batch(
    ctx: click.Context,
    /,
    *,
    source: str,
    backend: str,
    quiet: bool,
    **_: Any,
) -> None:
    """Ask every prompt of INPUT, a file or - for stdin; keep each outcome in FILE.

    A line of INPUT is a prompt, or JSON with "prompt" or "messages", and other
    fields to keep. Run again, killed or not: it asks what FILE does not have.
    """
    site = one_site(ctx)
    settings = {key: ctx.params[key] for key in _SETTINGS}
    try:
        with _progress(quiet=quiet) as progress:
            running = _Running(_opened(source), site, progress, **settings)
            status = anyio.run(running.run, backend=backend)
    except (OutputError, ValueError) as error:
        say(str(error))
        ctx.exit(USAGE)
    except ImportError as error:
        say(str(error))
        ctx.exit(FAILED)
    except OSError as error:
        place = "" if error.filename is None else f"{error.filename}: "
        say(f"{place}{error.strerror or error}")
        ctx.exit(FAILED)
    ctx.exit(status)


class _Running:
    """A batch on its way; `run` returns the exit status."""

    def __init__(
        self,
        source: str | BinaryIO,
        site: Site,
        progress: Progress | None,
        *,
        out: str,
        grace: float,
        **settings: Any,
    ) -> None:
        self._source = source
        self._site = site
        self._out = out
        self._grace = grace
        self._settings = settings
        self._progress = progress
        self._summary: BatchSummary | None = None
        self._failure: Exception | None = None

    async def run(self) -> int:
        """The exit status, once all that is done is on the disk.

        :raises Exception: the library's, bare
        """
        self._ctrl_c = CtrlC(self._say_that_it_stops)
        async with anyio.create_task_group() as tg:
            tg.start_soon(self._ctrl_c.watch)
            with self._ctrl_c.scope:
                try:
                    await self._ask()
                except Exception as error:  # noqa: BLE001 - bare; the task group would wrap it
                    self._failure = error
            tg.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure
        if self._ctrl_c.count and not (self._summary and self._summary.complete):
            return INTERRUPTED
        return 0 if self._summary and self._summary.all_answered else FAILED

    async def _ask(self) -> None:
        opening = opened_client(
            self._site, tell=self._say, max_connections=self._settings["max_at_once"]
        )
        async with opening as client:
            await run_batch(
                client,
                self._source,
                self._out,
                site=self._key_name(),
                on_progress=self._see,
                on_bad_line=None if self._progress is None else self._progress.bad_line,
                stop=self._ctrl_c.stop,
                grace=self._grace,
                **self._settings,
            )

    def _key_name(self) -> str | None:
        """The site's name in the keys; None is its URL, and the model's name."""
        if self._site.embedded:
            return "embedded"
        return f"fleet {self._site.name}" if self._site.members else None  # its sites may change

    def _see(self, summary: BatchSummary) -> None:
        self._summary = summary
        if self._progress is not None:
            self._progress.see(summary)

    def _say_that_it_stops(self) -> None:
        self._say(f"stopping: what runs has {self._grace:g} s; Ctrl-C again gives it up")

    def _say(self, text: str) -> None:
        if self._progress is not None:
            self._progress.say(text)


def _opened(source: str) -> str | BinaryIO:
    if source != "-":
        return source
    if sys.stdin is None:
        raise click.UsageError("there is no stdin to read.")
    return sys.stdin.buffer


def _progress(*, quiet: bool) -> AbstractContextManager[Progress | None]:
    if quiet:
        return nullcontext()
    try:
        from ._progress import progress_on_stderr  # noqa: PLC0415 - 50 ms
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "rich":
            raise
        raise ImportError(
            "progress needs rich; pip install 'gprochat-anyio[cli]', or give --quiet"
        ) from None
    return progress_on_stderr()
