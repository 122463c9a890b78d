"""What one run of a batch does, and in which tasks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final

import anyio

from gprochat_anyio import InvalidPromptError, Limiter, Outcome
from gprochat_anyio._fanout.results import Results
from gprochat_anyio._wire.messages import Prompt

from ._input import Records
from ._journal import Journal
from ._records import Record, line_of_error, line_of_reply
from ._summary import BatchSummary, Tally

REPORT_EVERY: Final = 0.25
"""Seconds between two reports of how it goes."""


class Runner:
    """One run: reads, asks and records.

    :param journal: open from `run` on
    :param on_bad_line: called with the number of a bad line, and why it is bad
    :param limiter: what the prompts are asked by
    :param max_at_once: how many prompts are asked at once
    """

    def __init__(
        self,
        records: Records,
        journal: Journal,
        on_bad_line: Callable[[int, str], object] | None,
        limiter: Limiter,
        max_at_once: int,
    ) -> None:
        self._records = records
        self._journal = journal
        self._on_bad_line = on_bad_line
        self._limiter = limiter
        self._max_at_once = max_at_once
        self._tally = Tally()
        self._began = anyio.current_time()
        self._running: dict[int, Record] = {}
        self._given = 0
        self._asking = anyio.CancelScope()
        self._reading = anyio.CancelScope()
        self._stopped = self._exhausted = False
        self._failure: Exception | None = None

    @property
    def summary(self) -> BatchSummary:
        """How it goes."""
        return self._tally.summary(
            in_flight=min(len(self._running), self._max_at_once),  # one more waits for its slot
            elapsed=anyio.current_time() - self._began,
            paused=self._limiter.statistics().paused,
        )

    async def run(
        self,
        main: Callable[[], Awaitable[None]],
        background: Iterable[Callable[[], Awaitable[None]]],
    ) -> None:
        """Run `main` to its end, or until something fails, with the others beside it.

        :raises Exception: the first failure, bare
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
        """Ask, and record each outcome, until all have ended or no more is to be done."""
        with self._asking:
            async with outcomes:
                async for outcome in outcomes:
                    await self._record(outcome)
        if self._exhausted and not self._running:
            self._tally.complete = True
            self._tally.total = self.summary.done

    async def count(self) -> None:
        """Find out how many prompts there are."""
        with suppress(OSError):  # whoever reads it says so
            self._tally.total = await self._records.count()

    async def report(self, on_progress: Callable[[BatchSummary], object]) -> None:
        """Report until cancelled."""
        while True:
            on_progress(self.summary)
            await anyio.sleep(REPORT_EVERY)

    async def stop_at(self, stop: anyio.Event, grace: float) -> None:
        """Once told, start nothing more; give the running prompts up when their time is over."""
        await stop.wait()
        self._stopped = True
        self._reading.cancel()
        with anyio.move_on_after(grace):
            await anyio.sleep_forever()
        self._asking.cancel()

    async def prompts(self) -> AsyncGenerator[Prompt]:
        """What is to be asked; what is not is dealt with on the way."""
        try:
            while not self._stopped and (record := await self._next_record()):
                if self._journal.answered.take(record.key):
                    self._tally.answered_before += 1
                elif self._journal.failed.take(record.key):
                    self._tally.failed_before += 1
                elif record.error is not None:
                    await self._record_bad(record, record.error)
                else:
                    assert record.prompt is not None
                    self._running[self._given] = record
                    self._given += 1
                    yield record.prompt
        finally:
            await self._records.aclose()

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - bare; the task group would wrap it
            self._failure = self._failure or error
            self._asking.cancel()

    async def _next_record(self) -> Record | None:
        record = None
        with anyio.CancelScope() as self._reading:
            record = await self._records.next()
            self._exhausted = record is None
        return record

    async def _record(self, outcome: Outcome) -> None:
        if outcome.prompt is None:  # reading failed; the others have ended
            self._failure = outcome.error
            return
        record = self._running.pop(outcome.index)
        if outcome.error is not None:
            self._tally.count_failure(outcome.error)
            self._journal.put(line_of_error(record, outcome.error))
        else:
            assert outcome.reply is not None
            self._tally.count_reply(outcome.reply.timing)
            self._journal.put(line_of_reply(record, outcome.reply))
        await self._journal.room()

    async def _record_bad(self, record: Record, error: InvalidPromptError) -> None:
        self._tally.count_failure(error)
        self._journal.put(line_of_error(record, error))
        if self._on_bad_line is not None and record.line is not None:
            self._on_bad_line(record.line, str(error))
        await self._journal.room()
