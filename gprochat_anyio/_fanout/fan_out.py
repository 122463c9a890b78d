"""Many prompts at once: their replies as one stream of events, as outcomes, or as a list."""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING

from gprochat_anyio._request.consuming import collect, forward
from gprochat_anyio._request.limiter import Limiter
from gprochat_anyio._request.reply import Reply
from gprochat_anyio._settings import Timeouts

from .event_channel import EventChannel
from .outcomes import Event, Failed, Finished, Outcome
from .plan import OnError, Plan
from .prompts import Prompts
from .result_channel import ResultChannel
from .results import Results
from .scheduler import Job, Scheduler

if TYPE_CHECKING:
    from gprochat_anyio._client import Client
    from gprochat_anyio._fleet.fleet import Fleet


class _EventScheduler(Scheduler[Event]):
    """Tells of each piece of text, and of each end."""

    def __init__(self, channel: EventChannel, plan: Plan) -> None:
        super().__init__(channel, plan)
        self._events = channel

    async def _ask(self, job: Job) -> Reply:
        return await forward(
            self._opener,
            self._request._replace(messages=job.messages),
            partial(self._events.offer_text, job.index),
            partial(self._events.put_text, job.index),
            in_time_by_its_end=True,
        )

    def _last(self, outcome: Outcome) -> Event:
        if outcome.reply is not None:
            return Finished(outcome.index, outcome.reply)
        assert outcome.error is not None
        return Failed(outcome.index, outcome.error)


class _OutcomeScheduler(Scheduler[Outcome]):
    """Tells of each end."""

    async def _ask(self, job: Job) -> Reply:
        return await collect(self._opener, self._request._replace(messages=job.messages))

    def _last(self, outcome: Outcome) -> Outcome:
        return outcome


def fan_out(
    client: Client | Fleet,
    prompts: Prompts,
    *,
    max_at_once: int | None = None,
    max_per_second: float | None = None,
    limiter: Limiter | None = None,
    timeouts: Timeouts | None = None,
    on_error: OnError = "collect",
    adaptive: bool = True,
) -> Results[Event]:
    """Ask many prompts, and get all their text as it arrives over one channel.

    ::

        async with fan_out(client, prompts) as events:
            async for event in events:  # Chunk | Finished | Failed
                ...

    Events of one index come in order: its chunks, then `Finished` or `Failed`. Those of different
    indexes come as they arrive. There is exactly one `Finished` or `Failed` for each prompt.

    Prompts are pulled as slots come free, at most `max_at_once + 1` ahead of the `Finished` and
    `Failed` that the caller has taken, so the input may be endless. It is advanced by one task,
    and closed by it in the end if it is a generator. A prompt's clocks start as it gets its slot.

    A slow caller slows the replies down: at most `max_at_once` events wait in the channel. Behind
    them up to 64 KiB of text, and one read, wait for each slot; then its connection is not read,
    and `idle` stands still. `total` does not.

    The number of requests at once adapts to a site that refuses some with a rate limit, as with
    `Limiter`. A refused prompt is asked again at the next start, before new ones; its deadlines
    start anew, unless the site asked for a pause: then `total` goes on. It fails with its
    `RateLimitError` where `Retry` does not cover that, if the site refuses it again and again while
    it answers others, and once `retry.attempts` pauses in a row brought nobody an answer.

    :param client: A `Client` or a `Fleet`. It stays open, and is the caller's to close. One of its
        `max_connections` is left for the caller, who may use the client while text waits in the
        channel.
    :param prompts: An iterable or an async iterable.
    :param max_at_once: The number of requests that run at the same time, at the most. None is the
        limiter's, or 16.
    :param max_per_second: The number of requests that start in a second, evenly spaced, retries
        included. None for no limit.
    :param limiter: Limits this fan-out together with others, in the place of a limiter of its own.
        One of its starts is left for the caller.
    :param timeouts: Overrides the client's, field by field, for each prompt.
    :param on_error: With "collect" a prompt without a complete reply gives `Failed`, an invalid one
        and an error of the iterable's, which ends the input, included. With "raise" the first of
        them cancels the rest and is raised by the iteration, bare, as the error that it is.
    :param adaptive: False to keep `max_at_once`, whatever the site refuses: then a refused prompt
        waits as `Retry` says. Not for a `limiter` that is given.
    :raises ValueError: For an argument that is invalid; the message names it. Also for a client
        with `max_connections=1`, which would leave none for the caller.
    """
    plan = Plan.of(
        client,
        prompts,
        max_at_once=max_at_once,
        max_per_second=max_per_second,
        limiter=limiter,
        timeouts=timeouts,
        on_error=on_error,
        adaptive=adaptive,
        may_be_held=True,
    )
    return Results(_EventScheduler(EventChannel(plan.workers), plan))


def as_completed(
    client: Client | Fleet,
    prompts: Prompts,
    *,
    max_at_once: int | None = None,
    max_per_second: float | None = None,
    limiter: Limiter | None = None,
    timeouts: Timeouts | None = None,
    on_error: OnError = "collect",
    adaptive: bool = True,
) -> Results[Outcome]:
    """Ask many prompts, and get an `Outcome` for each as it ends.

    ::

        async with as_completed(client, prompts) as outcomes:
            async for outcome in outcomes:
                ...

    At most `max_at_once + 1` outcomes wait for the caller; nothing is asked beyond that. All else
    is as with `fan_out`, parameters and errors included.
    """
    plan = Plan.of(
        client,
        prompts,
        max_at_once=max_at_once,
        max_per_second=max_per_second,
        limiter=limiter,
        timeouts=timeouts,
        on_error=on_error,
        adaptive=adaptive,
        may_be_held=False,
    )
    # room for one outcome of each prompt that is pulled
    return Results(_OutcomeScheduler(ResultChannel(plan.workers + 1), plan))


async def gather(
    client: Client | Fleet,
    prompts: Prompts,
    *,
    max_at_once: int | None = None,
    max_per_second: float | None = None,
    limiter: Limiter | None = None,
    timeouts: Timeouts | None = None,
    on_error: OnError = "collect",
    adaptive: bool = True,
) -> list[Outcome]:
    """Ask many prompts, and get an `Outcome` for each, in the order of the input.

    Cancelled, it cancels all requests and closes their connections before it returns. All else is
    as with `fan_out`, parameters and errors included; only an endless input makes no sense here.
    """
    running = as_completed(
        client,
        prompts,
        max_at_once=max_at_once,
        max_per_second=max_per_second,
        limiter=limiter,
        timeouts=timeouts,
        on_error=on_error,
        adaptive=adaptive,
    )
    del prompts  # a traceback shows what a frame holds
    async with running as outcomes:
        return sorted([outcome async for outcome in outcomes], key=attrgetter("index"))
