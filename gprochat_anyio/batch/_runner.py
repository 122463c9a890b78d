"""The tasks of one run of a batch: reading, asking and reporting."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final

import anyio

from gprochat_anyio import GPROChatError, Limiter, Outcome
from gprochat_anyio._fanout.results import Results
from gprochat_anyio._wire.messages import Prompt

from ._input import Records
from ._journal import Journal
from ._recorder import Recorder
from ._records import Record
from ._run_options import RunOptions
from ._summary import BatchSummary, Tally, WaitingFor

REPORT_EVERY: Final = 0.25
"""Time between two progress reports, in seconds."""


class Runner:
    """One run of a batch. It reads prompts, asks them and records their outcomes.

    :param records: The prompts. `prompts` closes them at its end.
    :param journal: The output. It must be open when `run` is called.
    :param on_bad_line: Called with the number of each invalid line, and the reason.
    :param limiter: The limiter of the requests.
    :param max_at_once: Maximum number of prompts in flight.
    :param site: The site's name in the keys.
    """

    def __init__(
        self,
        records: Records,
        journal: Journal,
        on_bad_line: Callable[[int, str], object] | None,
        limiter: Limiter,
        max_at_once: int,
        *,
        site: str,
        options: RunOptions,
    ) -> None:
        self._site = site
        self._options = options
        self._records = records
        self._journal = journal
        self._limiter = limiter
        self._max_at_once = max_at_once
        self._tally = Tally()
        self._recorder = Recorder(journal, self._tally, on_bad_line, options)
        self.given_up = self._recorder.given_up
        """Set once too many consecutive requests have failed."""
        self._began = anyio.current_time()
        self._running: dict[int, Record] = {}
        self._given = 0
        self._asking = anyio.CancelScope()
        self._reading = anyio.CancelScope()
        self._stopped = self._exhausted = self._awaits_input = False
        self._ended_at = self._began
        self._failure: Exception | None = None

    @property
    def summary(self) -> BatchSummary:
        """The summary of the run so far."""
        now = anyio.current_time()
        in_flight = min(len(self._running), self._max_at_once)  # one more waits for its slot
        paused = self._limiter.statistics().paused
        waiting_for = self._waiting_for(in_flight, paused)
        if self._tally.gave_up is not None:
            in_flight += self._recorder.held_back
        return self._tally.summary(
            in_flight=in_flight,
            elapsed=now - self._began,
            paused=paused,
            silent=now - self._ended_at,
            waiting_for=waiting_for,
        )

    async def run(
        self,
        main: Callable[[], Awaitable[None]],
        background: Iterable[Callable[[], Awaitable[None]]],
    ) -> None:
        """Run `main` to its end, or until something fails, with background tasks.

        :raises Exception: The first failure of any task, without an exception group.
        """
        try:
            async with anyio.create_task_group() as tg:
                for work in background:
                    tg.start_soon(self._guarded, work)
                await self._guarded(main)
                tg.cancel_scope.cancel()
        except BaseExceptionGroup as group:  # Ctrl-C, which hit a task
            raise group.exceptions[0] from None
        if self._failure is not None:
            raise self._failure

    async def ask_all(self, outcomes: Results[Outcome]) -> None:
        """Record each outcome, until all prompts have ended or the run stops."""
        self._tally.other_sites = {
            site: count for site, count in self._journal.sites.items() if site != self._site
        }
        try:
            with self._asking:
                async with outcomes:
                    async for outcome in outcomes:
                        await self._record(outcome)
        finally:
            if self._tally.gave_up is None:
                self._recorder.record_held_back()
        if self._exhausted and not self._running and not self._recorder.held_back:
            self._tally.complete = True
            self._tally.total = self.summary.done

    async def count(self) -> None:
        """Count the prompts of the source, for the summary."""
        with suppress(OSError):  # reading the prompts fails as well, and raises it
            self._tally.total = await self._records.count()

    async def report(self, on_progress: Callable[[BatchSummary], object]) -> None:
        """Report until cancelled."""
        while True:
            on_progress(self.summary)
            await anyio.sleep(REPORT_EVERY)

    async def stop_at(self, stop: anyio.Event, grace: float) -> None:
        """Start no more prompts once `stop` is set. After `grace` seconds, cancel running ones."""
        await stop.wait()
        self._stopped = True
        self._reading.cancel()
        with anyio.move_on_after(grace):
            await anyio.sleep_forever()
        self._asking.cancel()

    async def prompts(self) -> AsyncGenerator[Prompt]:
        """Yield the prompts to ask. Skip those with a line, and record the invalid ones."""
        try:
            while not self._stopped and (record := await self._next_record()):
                if self._recorder.is_done(record):
                    continue
                if record.error is not None:
                    self._recorder.record_bad(record, record.error)
                    await self._journal.room()
                    continue
                assert record.prompt is not None
                self._running[self._given] = record
                self._given += 1
                yield record.prompt
                if self._given == self._options.limit:
                    self._tally.limit_reached = True
                    break
        finally:
            await self._records.aclose()

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - the task group would wrap it in a group
            self._failure = self._failure or error
            self._asking.cancel()

    async def _next_record(self) -> Record | None:
        record = self._records.next_ready()
        if record is not None:
            return record
        with anyio.CancelScope() as self._reading:
            self._awaits_input = True
            record = await self._records.next()
            self._exhausted = record is None
        self._awaits_input = False
        return record

    async def _record(self, outcome: Outcome) -> None:
        if outcome.prompt is None:  # reading the source failed; all prompts have ended
            self._failure = outcome.error
            return
        record = self._running.pop(outcome.index)
        self._ended_at = anyio.current_time()
        if outcome.error is not None:
            assert isinstance(outcome.error, GPROChatError)
            self._recorder.record_failure(record, outcome.error)
        else:
            assert outcome.reply is not None
            self._recorder.record_reply(record, outcome.reply)
        await self._journal.room()

    def _waiting_for(self, in_flight: int, paused: float) -> WaitingFor | None:
        if paused:
            return "rate limit"
        if self._journal.full:
            return "output"
        if in_flight:
            return "site"
        return "input" if self._awaits_input else None
