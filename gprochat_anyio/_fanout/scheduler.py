"""Asks many prompts at once: what is pulled, what starts, what is asked again."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from heapq import heappop, heappush
from typing import Generic, TypeVar

import anyio

from gprochat_anyio._errors import GPROChatError, InvalidPromptError, RateLimitError
from gprochat_anyio._redaction import strip_traceback
from gprochat_anyio._request.endpoint import Endpoint, PreparedRequest
from gprochat_anyio._request.incoming import IncomingReply
from gprochat_anyio._request.reply import Reply
from gprochat_anyio._request.sinks import Collector
from gprochat_anyio._settings import Timeouts
from gprochat_anyio._wire.messages import Message, Prompt, checked, history

from .background_tasks import BackgroundTasks
from .outcomes import Outcome
from .pace import Pace
from .prompts import END, PromptSource

_Sink = TypeVar("_Sink", bound=Collector)


class _Job:
    """A prompt that has no outcome yet."""

    __slots__ = ("asked", "index", "messages", "prompt", "refusal", "request")

    def __init__(self, index: int, prompt: Prompt, messages: tuple[Message, ...]) -> None:
        self.index = index
        self.prompt = prompt
        self.messages = messages
        self.request = 0
        """What `Pace` knows its present request by."""
        self.asked = 0
        """How many requests were refused by a rate limit."""
        self.refusal: RateLimitError | None = None

    def __lt__(self, other: _Job) -> bool:
        return self.index < other.index


class Scheduler(Generic[_Sink]):
    """Asks prompts as slots come free, in tasks of a crew's.

    One task pulls the prompts, and one worker for each slot in use asks them, from one prompt to
    the next. So an async generator is only ever advanced, and closed, by one and the same task.

    :param sink: makes what takes the text of a reply
    :param read: waits for the end of a reply
    :param report: hands over an outcome; its slot is in use until it returns
    :param ended: called behind the last outcome
    """

    def __init__(
        self,
        endpoint: Endpoint,
        source: PromptSource,
        pace: Pace,
        crew: BackgroundTasks,
        *,
        max_at_once: int,
        timeouts: Timeouts | None,
        sink: Callable[[int], _Sink],
        read: Callable[[int, IncomingReply, _Sink], Awaitable[None]],
        report: Callable[[Outcome], Awaitable[None]],
        ended: Callable[[], None],
    ) -> None:
        self._endpoint = endpoint
        self._source = source
        self._pace = pace
        self._crew = crew
        self._max_at_once = max_at_once
        self._timeouts = timeouts
        # rate limits are for `Pace` to wait for
        self._retry = replace(endpoint.retry, statuses=endpoint.retry.statuses - {429})
        self._sink = sink
        self._read = read
        self._report = report
        self._ended = ended
        self._queue: list[_Job] = []  # a heap: who was refused goes before who is new
        self._running = 0
        self._pulled = self._taken = 0
        self._pulled_all = False
        self._room: anyio.Event | None = None  # set for the task that pulls
        self._pacing = False  # whether a task waits until the next request may start

    def taken(self) -> None:
        """Count an outcome that the caller has taken."""
        self._taken += 1
        if self._room is not None:
            self._room.set()

    async def pull(self) -> None:
        """Pull prompts, never more than `max_at_once + 1` ahead of the outcomes taken."""
        failure: Exception | None = None
        try:
            while failure is None:
                while self._pulled - self._taken > self._max_at_once:
                    self._room = anyio.Event()
                    await self._room.wait()
                try:
                    prompt = await self._source.next()
                except Exception as error:  # noqa: BLE001 - the caller's own, reported as it is
                    failure = error
                else:
                    if prompt is END:
                        break
                    await self._add(prompt)
                    del prompt
        finally:
            await self._source.aclose()
        if failure is not None:
            self._pulled += 1
            await self._report(Outcome(index=self._pulled - 1, prompt=None, error=failure))
        self._pulled_all = True
        self._look_for_the_end()

    async def _add(self, prompt: Prompt) -> None:
        index = self._pulled
        self._pulled += 1
        messages = checked(history, prompt)
        if isinstance(messages, InvalidPromptError):
            await self._report(Outcome(index=index, prompt=prompt, error=messages))
        else:
            heappush(self._queue, _Job(index, prompt, messages))
            self._dispatch()

    def _dispatch(self, now: float = -math.inf) -> None:
        """Start what may start.

        :param now: the time, if the event loop's clock is behind it
        """
        while (job := self._next_job(now)) is not None:
            self._crew.start(self._work, job)

    def _next_job(self, now: float = -math.inf) -> _Job | None:
        """The job to start now, if there is one; it holds a slot from here on."""
        if not self._queue or self._running >= self._pace.limit:
            return None
        now = max(now, anyio.current_time())
        free_at = self._pace.free_at
        if free_at > now:
            if free_at < math.inf and not self._pacing:
                self._pacing = True
                self._crew.start(self._dispatch_at, free_at)
            return None
        job = heappop(self._queue)
        job.request = self._pace.start(now)
        self._running += 1
        return job

    async def _dispatch_at(self, time: float) -> None:
        await anyio.sleep_until(time)
        self._pacing = False
        self._dispatch(time)

    async def _work(self, job: _Job | None) -> None:
        while job is not None:
            await self._ask(job)
            self._running -= 1
            job = self._next_job()
            self._dispatch()
        self._look_for_the_end()

    def _look_for_the_end(self) -> None:
        if self._pulled_all and not self._queue and not self._running:
            self._ended()

    async def _ask(self, job: _Job) -> None:
        """Ask once, and report what comes of it, unless it is to be asked again."""
        pace = self._pace
        try:
            reply = await self._reply_to(job)
        except RateLimitError as error:
            job.asked += 1
            strip_traceback(error)
            job.refusal = error
            now, pauses = anyio.current_time(), pace.pauses
            again = pace.refused(job.request, error, now)
            if pace.pauses > pauses:
                self._endpoint.observers.paused(pace.free_at - now, pace.limit)
            if again:
                heappush(self._queue, job)
                return
            refused = [job]
            if pace.given_up:
                refused += [other for other in self._queue if other.refusal is not None]
                self._queue = sorted(other for other in self._queue if other.refusal is None)
            outcomes = [_outcome(other, error=other.refusal) for other in refused]
        except GPROChatError as error:
            pace.failed(job.request)
            outcomes = [_outcome(job, error=strip_traceback(error))]
        else:
            outcomes = [_outcome(job, reply=reply)]
        for outcome in outcomes:
            await self._report(outcome)

    async def _reply_to(self, job: _Job) -> Reply:
        sink = self._sink(job.index)
        request = PreparedRequest(job.messages, self._timeouts, retry=self._retry)
        reply = await self._endpoint.open(request, sink)
        try:
            reply.attempts += job.asked
            self._pace.answered(job.request)
            self._dispatch()
            await self._read(job.index, reply, sink)
        finally:
            reply.end()
        return Reply(sink.text, reply.timing)


def _outcome(job: _Job, *, reply: Reply | None = None, error: Exception | None = None) -> Outcome:
    return Outcome(index=job.index, prompt=job.prompt, reply=reply, error=error)
