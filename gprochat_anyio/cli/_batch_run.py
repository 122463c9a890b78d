"""A batch from its first prompt to its exit status, with progress and Ctrl-C."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from gprochat_anyio.batch import BatchSummary, run_batch

from ._batch_ray import RayCluster
from ._ctrl_c import CtrlC
from ._exit_codes import FAILED, say
from ._inside import opened_client
from ._site import Site

if TYPE_CHECKING:
    from ._progress import Progress


class BatchRun:
    """A batch that is run once, with progress and Ctrl-C."""

    def __init__(
        self,
        source: Any,
        site: Site,
        progress: Progress | None,
        *,
        out: str | Path,
        cluster: RayCluster | None,
        backend: str,
        **settings: Any,
    ) -> None:
        self._source = source
        self._site = site
        self._out = out
        self._cluster = cluster
        self._backend = backend
        self._settings = settings
        self._progress = progress
        self.summary: BatchSummary | None = None
        """The latest summary."""
        self._failure: Exception | None = None

    async def run(self) -> int:
        """Run the batch, and return the exit status. All outcomes are on the disk then.

        :raises Exception: As `run_batch` or `run_on_ray`, not in a group.
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
        return self._status()

    def _status(self) -> int:
        summary = self.summary
        if self._progress is None and summary and summary.gave_up:
            say(f"given up: {summary.gave_up}")
        if self._ctrl_c.count and not (summary and summary.complete):
            return self._ctrl_c.status
        if summary is None or summary.failed or summary.failed_before:
            return FAILED
        return 0 if summary.complete or summary.limit_reached else FAILED

    async def _ask(self) -> None:
        if self._cluster is not None:
            settings = {**self._settings, "backend": self._backend}
            del settings["limit"]
            await self._cluster.ask(
                self._site,
                self._source,
                self._out,
                site=self._key_name(),
                on_progress=self._see,
                stop=self._ctrl_c.stop.is_set,
                **settings,
            )
            return
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
                **self._settings,
            )

    def _key_name(self) -> str | None:
        """Return the site's name in the keys. None stands for its URL and the model's name."""
        if self._site.embedded:
            return "embedded"
        return f"fleet {self._site.name}" if self._site.members else None  # its sites may change

    def _see(self, summary: BatchSummary) -> None:
        if self.summary is None and summary.other_sites and not self._settings["any_site"]:
            self._tell_of_other_sites(summary)
        self.summary = summary
        if self._progress is not None:
            self._progress.see(summary)

    def _tell_of_other_sites(self, summary: BatchSummary) -> None:
        names = sorted(summary.other_sites)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        self._say(
            f"{self._out} has {sum(summary.other_sites.values()):,} lines of {names[0]}{more}; "
            "their prompts are asked again; to count them as done, give --any-site"
        )

    def _say_that_it_stops(self) -> None:
        self._say(
            f"stopping: open replies have {self._settings['grace']:g} s; Ctrl-C again ends them"
        )

    def _say(self, text: str) -> None:
        if self._progress is not None:
            self._progress.say(text)


def progress_of(*, quiet: bool) -> AbstractContextManager[Progress | None]:
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
