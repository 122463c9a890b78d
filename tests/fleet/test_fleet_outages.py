"""Prompts to a fleet whose endpoints fail and recover, in virtual time: the maximum number of
requests."""

from __future__ import annotations

import random
from collections import Counter
from itertools import accumulate
from math import inf
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fleets import fleet_in_memory, nothing_left
from support.loops import VIRTUAL_LOOPS, virtual, virtual_backend
from support.tiers import examples

from gprochat_anyio import Chunk, Finished, GPROChatError, Timeouts, fan_out, gather
from gprochat_anyio._request.chat_client import opener_of
from gprochat_anyio.testing import Drop, Hang, Pause, Refuse, Request, Say, Script

SECONDS = 0.1
"""Duration of a reply."""

RESERVE = 10
"""Number of tokens in a new budget."""


class Ledger:
    """The log of each prompt's requests and first texts, at all endpoints."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str, float]] = []

    def note(self, kind: str, prompt: str) -> None:
        self.entries.append((kind, prompt, anyio.current_time()))

    def check(self) -> None:
        """Assert that no request follows a prompt's first text, and that each retry had a token."""
        asked = Counter[str]()
        answered: dict[str, float] = {}
        texts = 0
        for kind, prompt, time in self.entries:
            if kind == "text":
                texts += 1
                answered.setdefault(prompt, time)
            else:  # the fleet may learn of the text in the same moment
                assert time <= answered.get(prompt, inf)
                asked[prompt] += 1
                assert asked.total() - len(asked) <= RESERVE + texts


class Outages:
    """An endpoint that changes its behaviour over time.

    :param phases: Each behaviour, with its duration in seconds. Afterwards the endpoint works.
    """

    def __init__(self, ledger: Ledger, *phases: tuple[str, float]) -> None:
        self.answered: list[float] = []
        """Times of the successful requests."""
        self._ledger = ledger
        self._began = anyio.current_time()
        self._behaviours = [behaviour for behaviour, _ in phases]
        self._ends = list(accumulate(seconds for _, seconds in phases))
        self._running = 0

    def __call__(self, request: Request) -> Script:
        prompt = request.prompt
        self._ledger.note("asked", prompt)
        now = request.time - self._began
        ended = sum(end <= now for end in self._ends)
        behaviour = [*self._behaviours, "up"][ended]
        if behaviour in REFUSALS:
            return REFUSALS[behaviour]
        if behaviour == "limited":
            if self._running >= 4:
                return Refuse(429, "slow down", 0.2)
            self._running += 1

        async def begin() -> None:
            self._ledger.note("text", prompt)

        async def end() -> None:
            self._running -= behaviour == "limited"

        self.answered.append(request.time)
        last = Drop() if behaviour == "breaks" else Say("!")
        late = Pause(2 if behaviour == "slow" else 0)
        return [late, begin, Say(f"re {prompt}"), Pause(SECONDS), end, last]


REFUSALS: dict[str, Script] = {
    "down": [Pause(0.05), Refuse(503, "down")],
    "hangs": Hang(),
    "asks to wait": Refuse(503, "wait", 1),
    "rejects": Refuse(401, "key"),
    "blames": Refuse(400, "prompt"),
}


@pytest.mark.slow
@virtual
@pytest.mark.parametrize("hedge_after", [None, SECONDS / 2])
@pytest.mark.parametrize("fails", ["down", "hangs"])
async def test_one_down_one_with_a_refused_key_and_one_limited(
    fails: str, hedge_after: float | None
) -> None:
    ledger = Ledger()
    back = 1.0
    down = Outages(ledger, (fails, back))
    refusing, limited = Outages(ledger, ("rejects", 1000)), Outages(ledger, ("limited", 1000))
    async with fleet_in_memory(
        down,
        refusing,
        limited,
        timeouts=Timeouts(first_chunk=0.5),
        hedge_after=hedge_after,
        eject_for=2.0,
    ) as (fleet, sites):
        began = anyio.current_time()
        texts = Counter[int]()
        finished: dict[int, str] = {}
        state = fleet.states[0]
        async with fan_out(fleet, map(str, range(200))) as events:
            async for event in events:
                if isinstance(event, Chunk):
                    texts[event.index] += 1
                else:
                    assert isinstance(event, Finished)
                    finished[event.index] = event.reply.text
                if anyio.current_time() < began + back:
                    state = fleet.states[0]
        assert finished == {number: f"re {number}!" for number in range(200)}
        assert set(texts.values()) == {2}
        ledger.check()
        # the requests sent before the first response, then one probe at a time
        later = [r.time - began for r in sites[1].requests if r.time > began]
        assert later == pytest.approx([2.0])
        assert not refusing.answered
        assert down.answered[0] <= (state.until or began + back) + SECONDS
        assert len(down.answered) > 40
        assert fleet.states[0].state == "open"
        await nothing_left(fleet, sites)


@pytest.mark.slow
@pytest.mark.parametrize("loop", VIRTUAL_LOOPS)
@examples(0.4)
@given(
    phases=st.lists(
        st.lists(
            st.tuples(
                st.sampled_from(["up", "slow", "breaks", "limited", *REFUSALS]),
                st.sampled_from([0.3, 1.0, 5.0]),
            ),
            max_size=4,
        ),
        min_size=2,
        max_size=5,
    ),
    at_once=st.sampled_from([1, 8, 40]),
    hedge_after=st.sampled_from([None, 0.3]),
    eject_after=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_any_outages(
    loop: Any,
    phases: list[list[tuple[str, float]]],
    at_once: int,
    hedge_after: float | None,
    eject_after: int,
    seed: int,
) -> None:
    async def main() -> None:
        ledger = Ledger()
        async with fleet_in_memory(
            *[Outages(ledger, *one) for one in phases],
            timeouts=Timeouts(first_chunk=1.5, total=20),
            hedge_after=hedge_after,
            eject_after=eject_after,
            eject_for=2.0,
        ) as (fleet, sites):
            opener_of(fleet).roster._random = random.Random(seed)
            prompts = map(str, range(60))
            outcomes = await gather(fleet, prompts, max_at_once=at_once, adaptive=False)
            assert [outcome.index for outcome in outcomes] == list(range(60))
            for outcome in outcomes:
                assert outcome.reply is None or outcome.reply.text == f"re {outcome.index}!"
                assert outcome.error is None or isinstance(outcome.error, GPROChatError)
            ledger.check()
            await nothing_left(fleet, sites)

    random.seed(seed)  # the jitter of retries
    backend, options = virtual_backend(loop)
    anyio.run(main, backend=backend, backend_options=options)
