"""Fan-out functions: results as a stream of events, as a stream of outcomes, or as a list."""

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
    """Scheduler that reports every piece of text and every outcome."""

    def __init__(self, channel: EventChannel, plan: Plan) -> None:
        super().__init__(channel, plan)
        self._events = channel

    async def _ask(self, job: Job) -> Reply:
        return await forward(
            self._opener,
            self._request._replace(messages=job.messages, fields=job.fields),
            partial(self._events.offer_text, job.index),
            partial(self._events.put_text, job.index),
            total_ends_with_reply=True,
        )

    def _last(self, outcome: Outcome) -> Event:
        if outcome.reply is not None:
            return Finished(outcome.index, outcome.reply)
        assert outcome.error is not None
        return Failed(outcome.index, outcome.error)


class _OutcomeScheduler(Scheduler[Outcome]):
    """Scheduler that reports every outcome."""

    async def _ask(self, job: Job) -> Reply:
        return await collect(
            self._opener, self._request._replace(messages=job.messages, fields=job.fields)
        )

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
    """Ask many prompts, and receive the text of all replies from one channel as it arrives.

    ::

        async with fan_out(client, prompts) as events:
            async for event in events:  # Chunk | Finished | Failed
                ...

    The events of one prompt are in order: its chunks, then `Finished` or `Failed`. Events of
    different prompts are interleaved as they arrive. There is exactly one `Finished` or `Failed`
    per prompt.

    Prompts are pulled as slots become free, at most `max_at_once + 1` ahead of the `Finished` and
    `Failed` events that the caller has received, so the input may be infinite. One task advances
    the input, and closes it if it is a generator. A prompt's deadlines start when it gets its slot.

    A slow consumer slows the replies down. At most `max_at_once` events wait in the channel, and
    for each slot at most 64 KiB of text and one read wait behind it. Beyond that, the slot's
    connection is not read, and `idle` does not count. `total` does.

    Leaving the block cancels the running requests and closes their connections.

    The concurrency adapts to a site that refuses requests with a rate limit, as with `Limiter`. A
    refused prompt is retried at the next start, before new prompts. Its deadlines restart, but if
    the site asked for a pause, `total` continues. It fails with its `RateLimitError` if `Retry`
    does not cover that, if the site repeatedly refuses it while accepting others, or if no request
    was accepted in `retry.attempts` consecutive pauses.

    :param client: A `Client` or a `Fleet`. The caller closes it. One of its `max_connections` is
        reserved for the caller, who may use the client while text is waiting in the channel.
    :param prompts: An iterable or an async iterable of prompts.
    :param max_at_once: Maximum number of concurrent requests. `None` for the limiter's, or 16.
    :param max_per_second: Maximum number of starts per second, evenly spaced and including retries.
        `None` for no limit.
    :param limiter: A limiter shared with others, instead of a private one. One of its starts is
        reserved for the caller.
    :param timeouts: Time limits of each prompt, which override the client's.
    :param on_error: With "collect", a prompt without a complete reply gives `Failed`. That includes
        invalid prompts, and an exception of the iterable, which ends the input. With "raise", the
        first such error cancels the other requests, and the iteration raises it, not wrapped in an
        exception group.
    :param adaptive: Adapt the concurrency to refusals. If False, `max_at_once` is constant, and a
        refused prompt waits as `Retry` says. It does not apply to a given `limiter`.
    :raises ValueError: If an argument is invalid; the message names it. A client with
        `max_connections=1` is invalid, as it would leave none for the caller.
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
    """Ask many prompts, and receive an `Outcome` for each when it ends.

    ::

        async with as_completed(client, prompts) as outcomes:
            async for outcome in outcomes:
                ...

    At most `max_at_once + 1` outcomes wait for the caller, and no further prompts are asked
    meanwhile. Everything else is as for `fan_out`, including parameters and errors.
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
    # room for the outcome of every prompt that is pulled
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
    """Ask many prompts, and return an `Outcome` for each, in the order of the input.

    Cancellation cancels all requests and closes their connections before it propagates. Everything
    else is as for `fan_out`, including parameters and errors, but the input must be finite.
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
    del prompts  # a traceback would show the frame's variables
    async with running as outcomes:
        return sorted([outcome async for outcome in outcomes], key=attrgetter("index"))
