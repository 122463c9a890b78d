"""The driver's side of a batch on Ray: waiting for the shards' tasks, and stopping them."""

# pyright: reportMissingImports=false

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

import anyio
import ray
from ray.exceptions import RayError, RayTaskError

from ._batch_errors import ShardLostError
from ._lines import LineReader
from ._ray_tasks import UNANSWERED
from ._summary import BatchSummary, Tally, WaitingFor

_CHECK_EVERY: Final = 0.25
"""Time between two checks of the tasks, in seconds."""

_SLOWEST_END: Final = 30.0
"""Time after the grace period at which running shards are killed, in seconds."""


class ShardTasks:
    """Context manager for the tasks of all shards. Leaving it kills those that still run.

    :param coordinator: The coordinator's actor. Leaving the block kills it.
    :param on_progress: Called with the summary of all shards.
    :param stop: Called to check whether the shards must stop.
    :param grace: Time that running requests have after a stop, in seconds.
    """

    def __init__(
        self,
        coordinator: Any,
        on_progress: Callable[[BatchSummary], object] | None,
        stop: Callable[[], bool] | None,
        grace: float,
    ) -> None:
        self._coordinator = coordinator
        self._on_progress = on_progress
        self._stop = stop
        self._grace = grace
        self._began = time.monotonic()
        self._ends: float | None = None
        """Time at which shards that have not stopped are killed."""
        self._pending: dict[Any, int] = {}
        self._running: dict[int, BatchSummary] = {}
        self._ended: dict[int, BatchSummary | None] = {}
        self._failures: dict[int, Exception] = {}
        self._total: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self._kill()
        with suppress(RayError):  # so that no shard waits for the coordinator when it is killed
            ray.get(self._coordinator.stop.remote(), timeout=_CHECK_EVERY)
        ray.kill(self._coordinator)
        if self._on_progress is not None:
            self._on_progress(self.summary)

    def add(self, shard: int, task: Any) -> None:
        """Add the task of a shard."""
        self._pending[task] = shard

    def count(self, source: Any, files: tuple[str, ...] | None) -> None:
        """Count the prompts of the source, in a thread of its own."""
        if files is None:
            self._total = len(source)
        else:
            threading.Thread(target=self._count, args=(files,), daemon=True).start()

    def wait(self) -> BatchSummary:
        """Wait for all tasks, and return their summary.

        :raises KeyboardInterrupt: After all tasks have ended; on a second Ctrl-C, at once.
        :raises Exception: The failure of the first shard that failed.
        """
        interruption: KeyboardInterrupt | None = None
        while self._pending:
            try:
                self._check()
            except KeyboardInterrupt as error:
                if interruption is not None:
                    raise
                interruption = error
                self._stop = lambda: True
        if interruption is not None:
            raise interruption
        if self._failures:
            shard, failure = min(self._failures.items())
            if len(self._failures) > 1:
                failure.add_note(f"This was shard {shard}; {len(self._failures)} shards failed.")
            raise failure
        return self.summary

    @property
    def summary(self) -> BatchSummary:
        """The summary of all shards so far."""
        ended = {shard: one for shard, one in self._ended.items() if one is not None}
        known = {**self._running, **ended}.values()
        tally = Tally()
        for one in known:
            tally.merge(one)
        tally.complete = not self._pending and not self._failures
        tally.complete &= all(one is not None and one.complete for one in self._ended.values())
        tally.total = self._total
        if tally.complete:
            tally.total = sum(one.total or 0 for one in known)
        running = [one for shard, one in self._running.items() if shard in self._pending.values()]
        waits: set[WaitingFor | None] = {one.waiting_for for one in running}
        return tally.summary(
            in_flight=sum(one.in_flight for one in known),
            elapsed=time.monotonic() - self._began,
            paused=max((one.paused for one in running), default=0.0),
            silent=min((one.silent for one in running), default=0.0),
            waiting_for=waits.pop() if len(waits) == 1 else None,
        )

    def _check(self) -> None:
        with suppress(*UNANSWERED):
            self._running = ray.get(self._coordinator.progress.remote(), timeout=_CHECK_EVERY)
        every = list(self._pending)
        ready, _ = ray.wait(every, num_returns=len(every), timeout=_CHECK_EVERY, fetch_local=False)
        for task in ready:
            self._take(self._pending.pop(task), task)
        if self._ends is not None or (self._stop is not None and self._stop()):
            self._coordinator.stop.remote()  # each time: a restarted coordinator has lost it
            if self._ends is None:
                self._ends = time.monotonic() + self._grace + _SLOWEST_END
            if time.monotonic() > self._ends:
                self._kill()
        if self._on_progress is not None:
            self._on_progress(self.summary)

    def _take(self, shard: int, task: Any) -> None:
        try:
            self._ended[shard] = ray.get(task)
        except RayTaskError as error:
            cause = error.cause
            self._failures[shard] = cause if isinstance(cause, Exception) else error
        except RayError as error:
            self._failures[shard] = ShardLostError(
                f"shard {shard} ended without a result ({type(error).__name__}): its process was "
                "lost too often, or did not stop; run the batch again to go on"
            )

    def _kill(self) -> None:
        for task in self._pending:
            ray.cancel(task, force=True)

    def _count(self, files: tuple[str, ...]) -> None:
        async def count() -> None:
            counts = [await LineReader(file).count() for file in files]
            if None not in counts:
                self._total = sum(filter(None, counts))

        with suppress(OSError):  # reading the prompts fails as well, and raises it
            anyio.run(count)
