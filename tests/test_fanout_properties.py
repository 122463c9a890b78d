"""For any mix of replies, failures, delays and callers: one outcome for each prompt, in bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loops import VIRTUAL_LOOPS, virtual_backend

from gprochat_anyio import (
    Chunk,
    Client,
    Failed,
    Finished,
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
    """What becomes of one prompt.

    :param refused: how often a rate limit refuses it
    """

    kind: str
    chunks: int
    before: float
    between: float
    refused: int


fates = st.builds(
    Fate,
    kind=st.sampled_from(["reply", "reply", "reply", "error", "cut", "blank"]),
    chunks=st.integers(1, 5),
    before=delays,
    between=delays,
    refused=st.sampled_from([0, 0, 0, 0, 1, 9]),
)


@dataclass
class Case:
    fates: list[Fate]
    max_at_once: int
    max_per_second: float | None
    adaptive: bool
    source: float | None
    """Seconds between the prompts of an async source; None is an iterator."""
    caller: float
    """Seconds that the caller takes for a result."""

    def __post_init__(self) -> None:
        self.pulled = self.taken = 0
        self.refusals = dict(enumerate(fate.refused for fate in self.fates))

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
            return Pause(fate.before), Refuse(429, "slow down", retry_after=2)
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
        return {
            "max_at_once": self.max_at_once,
            "max_per_second": self.max_per_second,
            "adaptive": self.adaptive,
            "timeouts": Timeouts(idle=20),
        }

    def check(self, index: int, text: str | None, failure: Exception | None) -> None:
        """One outcome against the fate of its prompt."""
        fate = self.fates[index]
        if fate.kind == "blank":
            assert isinstance(failure, ValueError)
        elif isinstance(failure, RateLimitError):
            assert fate.refused
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
)


async def by_events(client: Client, case: Case) -> set[int]:
    texts: dict[int, str] = {}
    ended: set[int] = set()
    async with fan_out(client, case.prompts(), **case.settings) as events:
        assert events._channel is not None
        async for event in events:
            assert event.index not in ended
            if isinstance(event, Chunk):
                assert event.text
                texts[event.index] = texts.get(event.index, "") + event.text
            else:
                ended.add(event.index)
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
            statistics = events._channel.statistics()
            assert statistics.current_buffer_used <= case.max_at_once
            assert statistics.tasks_waiting_send <= case.max_at_once + 1
    return ended


async def by_outcomes(client: Client, case: Case) -> set[int]:
    ended: set[int] = set()
    async with as_completed(client, case.prompts(), **case.settings) as outcomes:
        assert outcomes._channel is not None
        async for outcome in outcomes:
            assert outcome.index not in ended
            ended.add(outcome.index)
            case.taken += 1
            case.check(outcome.index, outcome.reply.text if outcome.reply else None, outcome.error)
            await anyio.sleep(case.caller)
            assert outcomes._channel.statistics().tasks_waiting_send == 0
    return ended


async def by_list(client: Client, case: Case) -> set[int]:
    case.taken = 1000
    outcomes = await gather(client, case.prompts(), **case.settings)
    for place, outcome in enumerate(outcomes):
        assert outcome.index == place
        case.check(place, outcome.reply.text if outcome.reply else None, outcome.error)
    return {outcome.index for outcome in outcomes}


@pytest.mark.parametrize("loop", VIRTUAL_LOOPS)
@pytest.mark.parametrize("way", [by_events, by_outcomes, by_list])
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(case=cases)
def test_one_outcome_for_each_prompt(loop: str, way: Any, case: Case) -> None:
    async def main() -> None:
        retry = Retry(attempts=3, backoff=0)
        async with scripted_site(case.answer) as site, site.client(retry=retry) as client:
            assert await way(client, case) == set(range(len(case.fates)))
            if case.max_per_second is not None:
                assert all(b.time - a.time > 0.499 for a, b in pairwise(site.requests))

    backend, options = virtual_backend(loop)
    case.__post_init__()  # an example may be run again
    anyio.run(main, backend=backend, backend_options=options)
