"""The input of a fan-out: pulled on demand, and closed by one task."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.blocked import all_tasks_blocked
from support.exceptions import BoomError
from support.fan_outs import FORMS, as_async, numbers
from support.prompted import AtOnce, closed, echo, prompted

from gprochat_anyio import Chunk, as_completed, fan_out
from gprochat_anyio.testing import Hang, Hold, Request, Say, Step


class TestLaziness:
    @pytest.mark.parametrize("max_at_once", [1, 4])
    @pytest.mark.parametrize("make", [fan_out, as_completed])
    @pytest.mark.parametrize("form", [iter, as_async])
    async def test_endless_inputs_are_pulled_on_demand(
        self, make: Any, form: Callable[[Any], Any], max_at_once: int
    ) -> None:
        pulled = 0

        def prompts() -> Iterator[str]:
            nonlocal pulled
            for prompt in numbers():
                pulled += 1
                yield prompt if pulled % 5 else " "

        asked = AtOnce(echo)
        async with prompted(asked) as (client, _):
            async with make(client, form(prompts()), max_at_once=max_at_once) as results:
                await all_tasks_blocked()
                assert 1 <= pulled <= max_at_once + 1
                taken = 0
                async for result in results:
                    taken += not isinstance(result, Chunk)
                    for _ in range(taken % 7):
                        await checkpoint()
                    assert pulled <= taken + max_at_once + 1
                    if taken == 40:
                        break
            assert asked.most <= max_at_once
        assert pulled >= 40

    async def test_the_input_is_advanced_and_closed_by_one_task(self) -> None:
        tasks: set[int] = set()
        closed_by: set[int] = set()

        async def prompts() -> AsyncGenerator[str]:
            try:
                while True:
                    tasks.add(anyio.get_current_task().id)
                    with anyio.CancelScope():  # must be left by the task that entered it
                        yield "a"
            finally:
                closed_by.add(anyio.get_current_task().id)

        async with prompted() as (client, _):
            async with as_completed(client, prompts(), max_at_once=3) as outcomes:
                for _ in range(20):
                    await outcomes.receive()
        assert len(tasks) == 1
        assert closed_by == tasks

    @pytest.mark.parametrize("form", FORMS[2:])
    @pytest.mark.parametrize("end", ["break", "raise", "cancel"])
    async def test_a_generator_is_closed(self, form: Callable[[Any], Any], end: str) -> None:
        async with prompted() as (client, _):
            generator = form(numbers())
            with anyio.CancelScope() as scope:
                try:
                    async with fan_out(client, generator) as events:
                        async for _ in events:
                            if end == "break":
                                break
                            if end == "raise":
                                raise BoomError  # noqa: TRY301
                            scope.cancel()
                except BoomError:
                    assert end == "raise"
            if isinstance(generator, AsyncGenerator):
                with pytest.raises(StopAsyncIteration):
                    await anext(generator)
            else:
                assert generator.gi_frame is None

    async def test_one_fan_out_feeds_another(self) -> None:
        async with prompted() as (client, site):

            async def follow_ups() -> AsyncGenerator[str]:
                async with as_completed(client, numbers(), max_at_once=2) as outcomes:
                    async for outcome in outcomes:
                        yield f"and {outcome.unwrap().text}"

            texts = set()
            async with as_completed(client, follow_ups(), max_at_once=2) as outcomes:
                async for outcome in outcomes:
                    texts.add(outcome.unwrap().text)
                    if len(texts) == 10:
                        break
            assert {f"and {n}" for n in range(5)} <= texts
            await client.aclose()
            await closed(site)

    async def test_a_slow_caller_slows_the_replies(self) -> None:
        sent = 0

        def flood(request: Request) -> Iterator[Step | Hold]:
            nonlocal sent
            for _ in range(300):
                yield Say("x" * 60_000)
                sent += 1
            yield Hang()

        async with prompted(flood) as (client, _):
            async with fan_out(client, numbers(), max_at_once=3) as events:
                await events.receive()
                before = -1
                while before != sent:
                    before = sent
                    for _ in range(100):
                        await checkpoint()
                assert sent < 3 * 200  # the rest is in the kernel's socket buffers
                for _ in range(50):
                    await events.receive()
