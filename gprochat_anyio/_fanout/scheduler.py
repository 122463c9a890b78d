"""Pulls the prompts of a fan-out, has workers ask them, and reports the outcomes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import Any, Generic, TypeVar

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from gprochat_anyio._errors import GPROChatError, InvalidPromptError
from gprochat_anyio._redaction import strip_traceback
from gprochat_anyio._request.reply import Reply
from gprochat_anyio._wire.messages import Message, Prompt, checked, history

from .bare_task_group import KeptFailures
from .outcomes import Outcome
from .plan import Plan
from .prompts import END
from .result_channel import ResultChannel

_Item = TypeVar("_Item")

_PULLED_PER_TURN = 8
"""Prompts pulled in one turn of the event loop: replies are read, and taken, while many others are
opened, which takes some turns each."""


@dataclass(frozen=True, slots=True)
class Job:
    """A prompt that has no outcome yet."""

    index: int
    prompt: Prompt = field(repr=False)
    messages: tuple[Message, ...] = field(repr=False)


class Scheduler(ABC, Generic[_Item]):
    """Asks prompts, and sends their outcomes into a channel, whose sending end it closes.

    One task pulls the prompts, and workers ask them, from one prompt to the next. So an async
    generator is only ever advanced, and closed, by one and the same task.

    :param channel: closed at the producer's end with the last outcome
    """

    def __init__(self, channel: ResultChannel[Any], plan: Plan) -> None:
        self.channel = channel
        self._opener = plan.opener
        self._source = plan.source
        self._request = plan.request
        self._workers = plan.workers
        self._on_error = plan.on_error
        self._scope = anyio.CancelScope()
        self._failures = KeptFailures(self._fail)
        self._started = self._idle = 0
        self._pulled = self._taken = 0
        self._room: anyio.Event | None = None  # set for the task that pulls
        self.failure: Exception | None = None
        """The exception that ended it before all prompts had an outcome."""
        self.is_complete = False
        """True once all prompts have an outcome."""

    async def run(self) -> None:
        """Ask all prompts."""
        send, jobs = anyio.create_memory_object_stream[Job](inf)
        try:
            with send, jobs, self._scope:
                async with anyio.create_task_group() as workers:
                    with self._failures:
                        await self._pull(workers, send, jobs)
                    send.close()
                self.is_complete = self.failure is None
        finally:
            self.channel.end()

    def cancel(self) -> None:
        """Cancel all requests, from any task of the event loop, without waiting for their end."""
        self._scope.cancel()

    def taken(self) -> None:
        """Count an outcome that the caller has taken."""
        self._taken += 1
        if self._room is not None:
            self._room.set()

    @abstractmethod
    async def _ask(self, job: Job) -> Reply:
        """Ask once.

        :raises GPROChatError: If there is no complete reply.
        """

    @abstractmethod
    def _last(self, outcome: Outcome) -> _Item:
        """Return the item that tells of an outcome."""

    def _fail(self, error: Exception) -> None:
        """End all of it with an error, which the caller gets. After the caller has left, the end
        of the block raises it, if that has nothing else to raise."""
        if self.failure is None:
            self.failure = error
            self._scope.cancel()

    async def _pull(
        self,
        workers: TaskGroup,
        send: MemoryObjectSendStream[Job],
        jobs: MemoryObjectReceiveStream[Job],
    ) -> None:
        """Pull prompts, never more than `workers + 1` ahead of the outcomes taken."""
        failure: Exception | None = None
        try:
            while failure is None and self.failure is None:
                await self._wait_for_room()
                try:
                    prompt = await self._source.next()
                except Exception as error:  # noqa: BLE001 - the iterable's, reported as it is
                    failure = error
                    continue
                if prompt is END:
                    break
                job = await self._job(prompt)
                del prompt
                if job is not None:
                    send.send_nowait(job)
                    self._find_worker(workers, jobs)
                    del job
        except BaseException:
            await self._source.aclose()
            raise
        try:
            await self._source.aclose()
        except Exception as error:  # noqa: BLE001 - as above
            failure = failure or error
        if failure is not None:
            self._pulled += 1
            await self._report(Outcome(index=self._pulled - 1, prompt=None, error=failure))

    async def _wait_for_room(self) -> None:
        """Wait until another prompt may be pulled."""
        if self._pulled % _PULLED_PER_TURN == 0:
            await checkpoint()
        while self._pulled - self._taken > self._workers:
            self._room = anyio.Event()
            await self._room.wait()

    async def _job(self, prompt: Prompt) -> Job | None:
        """Return the job of a prompt; report it if it is invalid."""
        index = self._pulled
        self._pulled += 1
        messages = checked(history, prompt)
        if not isinstance(messages, InvalidPromptError):
            return Job(index, prompt, messages)
        await self._report(Outcome(index=index, prompt=prompt, error=messages))
        return None

    def _find_worker(self, workers: TaskGroup, jobs: MemoryObjectReceiveStream[Job]) -> None:
        if self._idle:
            self._idle -= 1  # it has the job
        elif self._started < self._workers:
            self._started += 1
            workers.start_soon(self._work, jobs, name="gprochat_anyio fan-out")

    async def _work(self, jobs: MemoryObjectReceiveStream[Job]) -> None:
        with self._failures:
            while True:
                try:
                    try:
                        job = jobs.receive_nowait()
                    except anyio.WouldBlock:
                        self._idle += 1
                        job = await jobs.receive()
                except anyio.EndOfStream:
                    return
                reply, problem = None, None
                try:
                    reply = await self._ask(job)
                except GPROChatError as error:
                    problem = strip_traceback(error)
                outcome = Outcome(index=job.index, prompt=job.prompt, reply=reply, error=problem)
                del job, reply, problem
                await self._report(outcome)
                del outcome

    async def _report(self, outcome: Outcome) -> None:
        if self._on_error == "raise" and outcome.error is not None:
            outcome.error.add_note(f"This was prompt {outcome.index} of a fan-out.")
            self._fail(outcome.error)
        else:
            # closed by the caller, who wants no more
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await self.channel.put(self._last(outcome))
