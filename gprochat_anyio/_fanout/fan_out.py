"""Many prompts at once: their replies as one stream of events, as outcomes, or as a list."""

from __future__ import annotations

from operator import attrgetter

from gprochat_anyio._client import Client
from gprochat_anyio._request.consuming import collect, forward
from gprochat_anyio._request.incoming import IncomingReply
from gprochat_anyio._request.sinks import Collector, Forwarder
from gprochat_anyio._settings import Timeouts

from .outcomes import Chunk, Event, Failed, Finished, Outcome
from .prompts import Prompts
from .results import OnError, Results


class Events(Results[Event]):
    """What `fan_out` gives."""

    @staticmethod
    def _room_for(max_at_once: int) -> int:
        return max_at_once

    def _sink(self, index: int) -> Forwarder:
        def offer(text: str) -> bool:
            return self._put(Chunk(index, text))

        return Forwarder(offer)

    async def _read(self, index: int, reply: IncomingReply, sink: Forwarder) -> None:
        async def send(text: str) -> None:
            await self._put_soon(Chunk(index, text))

        await forward(reply, sink, send, in_time_by_its_end=True)

    def _last(self, outcome: Outcome) -> Event:
        if outcome.reply is not None:
            return Finished(outcome.index, outcome.reply)
        assert outcome.error is not None
        return Failed(outcome.index, outcome.error)


class Outcomes(Results[Outcome]):
    """What `as_completed` gives."""

    @staticmethod
    def _room_for(max_at_once: int) -> int:
        return max_at_once + 1  # one for each prompt that is pulled

    def _sink(self, index: int) -> Collector:
        del index
        return Collector()

    async def _read(self, index: int, reply: IncomingReply, sink: Collector) -> None:
        del index
        await collect(reply, sink)

    def _last(self, outcome: Outcome) -> Outcome:
        return outcome


def fan_out(
    client: Client,
    prompts: Prompts,
    *,
    max_at_once: int = 16,
    max_per_second: float | None = None,
    timeouts: Timeouts | None = None,
    on_error: OnError = "collect",
    adaptive: bool = False,
) -> Events:
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

    A rate limit slows all of them down: no prompt is asked until the `Retry-After` is over (the
    backoff of the client's `Retry`, if there is none), then one alone, and when the site takes
    that one, the others. The refused prompts go first. They fail with their `RateLimitError` once
    `retry.attempts` such pauses in a row brought no answer. Pauses run on no clock.

    :param client: stays open, and is the caller's to close. Its `max_connections` should not be
        below `max_at_once`: a prompt that waits for a connection does so on `total`.
    :param prompts: an iterable or an async iterable
    :param max_at_once: how many requests run at the same time, at the most
    :param max_per_second: how many start in a second, evenly spaced: never sooner than
        `1 / max_per_second` seconds after the one before. None is no limit.
    :param timeouts: overrides the client's, field by field, for each prompt
    :param on_error: with "collect" a prompt without a complete reply gives `Failed`, an invalid one
        and an error of the iterable's, which ends the input, included. With "raise" the first of
        them cancels the rest and is raised by the iteration, bare, as the error that it is.
    :param adaptive: whether a rate limit also halves the number of requests at once, which then
        grows again by one as often as all of them have been answered, up to `max_at_once`
    :raises ValueError: that names the argument, for one that can not be
    """
    return Events(
        client,
        prompts,
        max_at_once=max_at_once,
        max_per_second=max_per_second,
        timeouts=timeouts,
        on_error=on_error,
        adaptive=adaptive,
    )


def as_completed(
    client: Client,
    prompts: Prompts,
    *,
    max_at_once: int = 16,
    max_per_second: float | None = None,
    timeouts: Timeouts | None = None,
    on_error: OnError = "collect",
    adaptive: bool = False,
) -> Outcomes:
    """Ask many prompts, and get an `Outcome` for each as it ends.

    ::

        async with as_completed(client, prompts) as outcomes:
            async for outcome in outcomes:
                ...

    At most `max_at_once + 1` outcomes wait for the caller; nothing is asked beyond that. All else
    is as with `fan_out`, parameters and errors included.
    """
    return Outcomes(
        client,
        prompts,
        max_at_once=max_at_once,
        max_per_second=max_per_second,
        timeouts=timeouts,
        on_error=on_error,
        adaptive=adaptive,
    )


async def gather(
    client: Client,
    prompts: Prompts,
    *,
    max_at_once: int = 16,
    max_per_second: float | None = None,
    timeouts: Timeouts | None = None,
    on_error: OnError = "collect",
    adaptive: bool = False,
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
        timeouts=timeouts,
        on_error=on_error,
        adaptive=adaptive,
    )
    del prompts  # a traceback shows what a frame holds
    async with running as outcomes:
        return sorted([outcome async for outcome in outcomes], key=attrgetter("index"))
