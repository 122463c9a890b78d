"""The scheduler of a fan-out: pulls prompts, distributes them to workers, reports outcomes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
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
from gprochat_anyio._wire.messages import FieldedPrompt, Message, Prompt, checked, history

from .bare_task_group import KeptFailures
from .outcomes import Outcome
from .plan import Plan
from .prompts import END
from .result_channel import ResultChannel

_Item = TypeVar("_Item")

_PULLED_PER_TURN = 8
"""Maximum number of prompts pulled per turn of the event loop, so that replies are read while many
requests are being opened."""


@dataclass(frozen=True, slots=True)
class Job:
    """A prompt without an outcome yet."""

    index: int
    prompt: Prompt = field(repr=False)
    messages: tuple[Message, ...] = field(repr=False)
    fields: Mapping[str, Any] | None = field(default=None, repr=False)


class Scheduler(ABC, Generic[_Item]):
    """Scheduler of a fan-out's prompts, which sends their outcomes to a channel.

    One task pulls the prompts, so that an async generator is advanced and closed by the same task.
    Worker tasks ask one prompt after another.

    :param channel: The channel, whose producer's end is closed after the last outcome.
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
        self._room: anyio.Event | None = None  # wakes the pulling task
        self.failure: Exception | None = None
        """The exception that ended the fan-out early."""
        self.is_complete: bool = False
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
        """Cancel all requests without waiting for their end. Call this in any task of the event
        loop."""
        self._scope.cancel()

    def taken(self) -> None:
        """Count an outcome that the caller has received."""
        self._taken += 1
        if self._room is not None:
            self._room.set()

    @abstractmethod
    async def _ask(self, job: Job) -> Reply:
        """Ask one prompt.

        :raises GPROChatError: If the request or the reply fails.
        """

    @abstractmethod
    def _last(self, outcome: Outcome) -> _Item:
        """Return the item that reports an outcome."""

    def _fail(self, error: Exception) -> None:
        """End the fan-out with an error, for the caller to receive.

        If the caller has left, the end of the block raises the error unless it raises another one.
        """
        if self.failure is None:
            self.failure = error
            self._scope.cancel()

    async def _pull(
        self,
        workers: TaskGroup,
        send: MemoryObjectSendStream[Job],
        jobs: MemoryObjectReceiveStream[Job],
    ) -> None:
        """Pull prompts, at most `workers + 1` ahead of the outcomes that the caller has
        received."""
        failure: Exception | None = None
        try:
            while failure is None and self.failure is None:
                await self._wait_for_room()
                try:
                    prompt = await self._source.next()
                except Exception as error:  # noqa: BLE001 - the iterable's, reported unchanged
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
        """Return the job of a prompt, or report an invalid prompt."""
        index = self._pulled
        self._pulled += 1
        messages = checked(history, prompt)
        if not isinstance(messages, InvalidPromptError):
            fields = prompt.fields if isinstance(prompt, FieldedPrompt) else None
            return Job(index, prompt, messages, fields)
        await self._report(Outcome(index=index, prompt=prompt, error=messages))
        return None

    def _find_worker(self, workers: TaskGroup, jobs: MemoryObjectReceiveStream[Job]) -> None:
        if self._idle:
            self._idle -= 1  # it takes the job
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
            # the caller has closed it
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await self.channel.put(self._last(outcome))
