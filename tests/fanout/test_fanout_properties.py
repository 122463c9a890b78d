"""Properties of fan-outs: one outcome for each prompt, within the limits, for any replies and
callers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.loops import VIRTUAL_LOOPS, virtual_backend
from support.prompted import AtOnce, pool_of

from gprochat_anyio import (
    Chunk,
    Client,
    Failed,
    Finished,
    Limiter,
    RateLimitError,
    ReplyInterruptedError,
    Retry,
    SiteError,
    Timeouts,
    as_completed,
    fan_out,
    gather,
)
from gprochat_anyio.testing import (
    Drop,
    Pause,
    Refuse,
    Request,
    Say,
    Script,
    Step,
    scripted_site,
)

delays = st.sampled_from([0.0, 0.0, 0.5, 3.0])


@dataclass(frozen=True)
class Fate:
    """The outcome planned for one prompt.

    :param refused: Number of times that a rate limit refuses it.
    :param retry_after: The `Retry-After` of these refusals, in seconds.
    :param busy: Number of times that the site fails with a retryable status.
    """

    kind: str
    chunks: int
    before: float
    between: float
    refused: int
    retry_after: float | None
    busy: int


fates = st.builds(
    Fate,
    kind=st.sampled_from(["reply", "reply", "reply", "error", "cut", "blank"]),
    chunks=st.integers(1, 5),
    before=delays,
    between=delays,
    refused=st.sampled_from([0, 0, 0, 0, 1, 9]),
    retry_after=st.sampled_from([None, 2]),
    busy=st.sampled_from([0, 0, 0, 1, 9]),
)


@dataclass
class Case:
    fates: list[Fate]
    max_at_once: int
    max_per_second: float | None
    adaptive: bool
    source: float | None
    """Seconds between the prompts of an async iterator. `None` for a plain iterator."""
    caller: float
    """Seconds that the caller spends on a result."""
    place: str
    """Owner of the limits: the fan-out ("own"), a limiter given to it, or one of the client's."""
    leaves: float | None
    """Seconds after which the caller is cancelled. `None` for never."""

    def __post_init__(self) -> None:
        self.pulled = self.taken = 0
        self.refusals = dict(enumerate(fate.refused for fate in self.fates))
        self.busy = dict(enumerate(fate.busy for fate in self.fates))
        self.seen: list[int] = []  # indexes of outcomes
        self.limiter = Limiter(
            max_at_once=self.max_at_once,
            max_per_second=self.max_per_second,
            adaptive=self.adaptive,
        )

    def pull(self, index: int) -> str:
        self.pulled += 1
        assert self.pulled <= self.taken + self.max_at_once + 1
        return " " if self.fates[index].kind == "blank" else str(index)

    def prompts(self) -> Any:
        def pulled() -> Iterator[str]:
            for index in range(len(self.fates)):
                yield self.pull(index)

        async def slowly(seconds: float) -> AsyncIterator[str]:
            for index in range(len(self.fates)):
                await anyio.sleep(seconds)
                yield self.pull(index)

        return pulled() if self.source is None else slowly(self.source)

    def answer(self, request: Request) -> Script:
        index = int(request.prompt)
        fate = self.fates[index]
        if self.refusals[index]:
            self.refusals[index] -= 1
            return Pause(fate.before), Refuse(429, "slow down", fate.retry_after)
        if self.busy[index]:
            self.busy[index] -= 1
            return Pause(fate.before), Refuse(503, "busy")
        if fate.kind == "error":
            return Pause(fate.before), Refuse(400, "no")
        steps: list[Step] = [Pause(fate.before)]
        for number in range(fate.chunks):
            steps += [Say(f"{index}.{number};"), Pause(fate.between)]
        return steps if fate.kind == "reply" else [*steps, Drop()]

    def text(self, index: int) -> str:
        return "".join(f"{index}.{number};" for number in range(self.fates[index].chunks))

    @property
    def settings(self) -> dict[str, Any]:
        common: dict[str, Any] = {"max_at_once": self.max_at_once, "timeouts": Timeouts(idle=20)}
        if self.place == "given":
            return common | {"limiter": self.limiter}
        return common | {"max_per_second": self.max_per_second, "adaptive": self.adaptive}

    def check(self, index: int, text: str | None, failure: Exception | None) -> None:
        """Check one outcome against the fate of its prompt."""
        fate = self.fates[index]
        assert index not in self.seen
        self.seen.append(index)
        if fate.kind == "blank":
            assert isinstance(failure, ValueError)
        elif isinstance(failure, RateLimitError):
            assert fate.refused
        elif isinstance(failure, SiteError) and failure.status == 503:
            assert fate.busy
        elif fate.kind == "error":
            assert isinstance(failure, SiteError)
        elif fate.kind == "cut":
            assert isinstance(failure, ReplyInterruptedError)
            assert failure.partial_text == self.text(index)
        else:
            assert failure is None
            assert text == self.text(index)


cases = st.builds(
    Case,
    fates=st.lists(fates, max_size=12),
    max_at_once=st.integers(1, 5),
    max_per_second=st.sampled_from([None, None, 2.0]),
    adaptive=st.booleans(),
    source=st.sampled_from([None, None, 0.0, 1.0]),
    caller=delays,
    place=st.sampled_from(["own", "given", "client"]),
    leaves=st.sampled_from([None, None, None, 0.0, 1.0, 4.0]),
)


async def by_events(client: Client, case: Case) -> None:
    texts: dict[int, str] = {}
    async with fan_out(client, case.prompts(), **case.settings) as events:
        async for event in events:
            assert event.index not in case.seen
            if isinstance(event, Chunk):
                assert event.text
                texts[event.index] = texts.get(event.index, "") + event.text
            else:
                case.taken += 1
                text = texts.get(event.index, "")
                if isinstance(event, Finished):
                    assert event.reply.text == text
                    case.check(event.index, text, None)
                else:
                    assert isinstance(event, Failed)
                    assert getattr(event.error, "partial_text", "") == text
                    case.check(event.index, None, event.error)
            await anyio.sleep(case.caller)
            statistics = events._channel._receive.statistics()
            assert statistics.current_buffer_used <= case.max_at_once
            assert statistics.tasks_waiting_send <= case.max_at_once + 1


async def by_outcomes(client: Client, case: Case) -> None:
    async with as_completed(client, case.prompts(), **case.settings) as outcomes:
        async for outcome in outcomes:
            case.taken += 1
            case.check(outcome.index, outcome.reply.text if outcome.reply else None, outcome.error)
            await anyio.sleep(case.caller)
            assert outcomes._channel._receive.statistics().tasks_waiting_send == 0


async def by_list(client: Client, case: Case) -> None:
    case.taken = 1000
    outcomes = await gather(client, case.prompts(), **case.settings)
    for place, outcome in enumerate(outcomes):
        assert outcome.index == place
        case.check(place, outcome.reply.text if outcome.reply else None, outcome.error)


@pytest.mark.parametrize("loop", VIRTUAL_LOOPS)
@pytest.mark.parametrize("way", [by_events, by_outcomes, by_list])
@given(case=cases)
def test_one_outcome_for_each_prompt_within_the_limits(loop: str, way: Any, case: Case) -> None:
    async def main() -> None:
        asked = AtOnce(case.answer)
        retry = Retry(attempts=3, backoff=0)
        limiter = case.limiter if case.place == "client" else None
        async with scripted_site(asked) as site:
            async with site.client(retry=retry, limiter=limiter, max_connections=9) as client:
                with anyio.move_on_after(inf if case.leaves is None else case.leaves) as scope:
                    await way(client, case)
                if not scope.cancelled_caught:
                    assert sorted(case.seen) == list(range(len(case.fates)))
                assert asked.most <= case.max_at_once
                if case.max_per_second is not None:
                    gap = 0.999 / case.max_per_second
                    assert all(b.time - a.time > gap for a, b in pairwise(site.requests))
                statistics = case.limiter.statistics()
                assert (statistics.running, statistics.waiting) == (0, 0)
                assert pool_of(client).statistics()[::2] == (9, 0)

    backend, options = virtual_backend(loop)
    case.__post_init__()  # Hypothesis may run an example again
    if way is by_events and case.place != "own":
        case.max_at_once = max(case.max_at_once, 2)  # one is reserved for the caller
        case.__post_init__()
    anyio.run(main, backend=backend, backend_options=options)
