"""The stop of a batch: no more prompts start, and running ones may end."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from support.batch_runs import Held, run, texts
from support.batch_site import batch_site
from support.blocked import all_tasks_blocked

from gprochat_anyio.batch import BatchSummary

pytestmark = pytest.mark.usefixtures("quick_ticks")


class TestStop:
    async def test_starts_no_more_prompts_and_waits_for_running_ones(self, out: Path) -> None:
        held = Held("0", "1")
        stop = anyio.Event()
        results: list[BatchSummary] = []

        async def go() -> None:
            source = (f"{n}" for n in range(9))
            results.append(await run(site, source, out, stop=stop, max_at_once=2))

        async with batch_site(held) as site, anyio.create_task_group() as tg:
            tg.start_soon(go)
            await held.holding.wait()
            stop.set()
            await all_tasks_blocked()
            held.go_on.set()
        assert not results[0].complete
        assert {"0", "1"} <= set(site.asked) <= {"0", "1", "2"}, "one was read already"
        assert texts(out) == [f"re: {n}" for n in sorted(site.asked)]

    async def test_cancels_prompts_after_the_grace_period(self, out: Path) -> None:
        held = Held("two")
        stop = anyio.Event()
        results: list[BatchSummary] = []

        async def go() -> None:
            results.append(await run(site, ["one", "two"], out, stop=stop, grace=0.01))

        async with batch_site(held) as site:
            async with anyio.create_task_group() as tg:
                tg.start_soon(go)
                await held.holding.wait()
                stop.set()
            assert (results[0].answered, results[0].in_flight) == (1, 1)
            assert not results[0].complete
            assert texts(out) == ["re: one"]
            held.go_on.set()
            assert (await run(site, ["one", "two"], out)).all_answered
        assert texts(out) == ["re: one", "re: two"]

    async def test_while_waiting_for_the_source(self, out: Path) -> None:
        stop = anyio.Event()

        async def items() -> AsyncIterator[str]:
            yield "one"
            stop.set()
            await anyio.sleep_forever()

        async with batch_site() as site:
            summary = await run(site, items(), out, stop=stop, grace=math.inf)
        assert texts(out) == ["re: one"]
        assert not summary.complete

    async def test_after_the_last_prompt_changes_nothing(self, out: Path) -> None:
        held = Held("one")
        stop = anyio.Event()
        results: list[BatchSummary] = []

        async def go() -> None:
            results.append(await run(site, ["one"], out, stop=stop))

        async with batch_site(held) as site, anyio.create_task_group() as tg:
            tg.start_soon(go)
            await held.holding.wait()
            await all_tasks_blocked()
            stop.set()
            await all_tasks_blocked()
            held.go_on.set()
        assert results[0].all_answered
