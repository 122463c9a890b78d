"""Models in this process: their generator is closed before a cancellation or a block leaves."""

from __future__ import annotations

import gc
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.blocked import all_tasks_blocked
from support.cancelling import ENDING, ask, stream, turns_until
from support.loops import virtual
from support.models import Saying

from gprochat_anyio import Client, Fleet, ReplyStream
from gprochat_anyio.site import Turn
from gprochat_anyio.testing import at_every_checkpoint, injections, no_leaks
from gprochat_anyio.testing._injection import Injection, cancelled


@pytest.mark.parametrize("operation", ENDING)
async def test_at_every_suspension(operation: Callable[[Client], Awaitable[None]]) -> None:
    model = Saying("one", "two", "three")
    async with Client.of(model) as client:
        began = 0
        for cancel in at_every_checkpoint():
            async with no_leaks(client):
                await cancel(partial(operation, client))
                assert model.running == 0, cancel
            began += bool(model.histories)
            assert (await client.ask("next")).text == "onetwothree"
            model.histories.clear()
        assert began >= 4


@pytest.mark.slow
@pytest.mark.parametrize("operation", ENDING)
async def test_at_every_pair_of_suspensions(
    operation: Callable[[Client], Awaitable[None]],
) -> None:
    model = Saying("one", "two")
    async with Client.of(model) as client:
        for moment, native in injections():
            for first in range(1, 6):
                for again in range(first + 1, 8):
                    injection = Injection(first, moment, native, again)
                    async with no_leaks(client):
                        await cancelled(injection, partial(operation, client))
                        assert model.running == 0, injection
        assert (await client.ask("next")).text == "onetwo"


async def next_second() -> None:
    await anyio.sleep_until(int(anyio.current_time()) + 1)


@virtual
@pytest.mark.parametrize("operation", [ask, stream])
async def test_hedges_at_every_suspension(operation: Callable[[Any], Awaitable[None]]) -> None:
    """Both models yield their texts in the same moment."""
    model = Saying("one", "two", pause=next_second, clean_up=partial(anyio.sleep, 0.1))
    async with Fleet([Client.of(model), Client.of(model)], hedge_after=0.5) as fleet:
        for cancel in at_every_checkpoint():
            async with no_leaks():
                await cancel(partial(operation, fleet))
                assert model.running == 0, cancel
        assert model.most == 2


async def leave(chunks: ReplyStream) -> None:
    """Do nothing: the caller leaves the block."""


async def stop(chunks: ReplyStream) -> None:
    chunks.stop()


async def close(chunks: ReplyStream) -> None:
    await chunks.aclose()


@pytest.mark.parametrize("ending", [leave, stop, close])
@pytest.mark.parametrize("texts", [1, 3, 1000])
async def test_a_stream_that_is_left(
    ending: Callable[[ReplyStream], Awaitable[None]], texts: int
) -> None:
    """While the model waits, while it is being started, and while it is paused."""
    waits = iter([checkpoint] * texts)

    async def pause() -> None:
        await next(waits, anyio.sleep_forever)()

    model = Saying("x" * 1000, pause=pause, endless=True)
    async with Client.of(model) as client:
        async with client.stream("hi") as chunks:
            await all_tasks_blocked()
            assert model.running == 1
            await ending(chunks)
        assert model.running == 0


async def test_a_stream_that_is_closed_while_it_is_entered() -> None:
    go_on = anyio.Event()
    model = Saying("one", pause=go_on.wait, endless=True)
    entered: list[int] = []

    async def enter() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            async with chunks:
                pass
        entered.append(model.running)

    async with Client.of(model) as client:
        chunks = client.stream("hi")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(enter)
            await all_tasks_blocked()
            await chunks.aclose()
            go_on.set()
    assert entered == [0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:a ReplyStream was dropped:ResourceWarning")
async def test_a_stream_that_is_dropped() -> None:
    model = Saying("x", pause=checkpoint, endless=True)
    async with Client.of(model) as client:
        chunks = client.stream("hi")
        await chunks.__aenter__()
        del chunks
        gc.collect()
        assert await turns_until(lambda: not model.running) <= 8


async def test_a_model_that_never_waits_can_be_cancelled() -> None:
    closed = False

    async def restless(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        nonlocal closed
        try:
            for sent in itertools.count():
                if sent == 1000:
                    scope.cancel()
                yield "x"
        finally:
            closed = True

    async with Client.of(restless, max_reply_size=None) as client:
        for operation in ENDING:
            closed = False
            with anyio.CancelScope() as scope:
                await operation(client)
            assert scope.cancelled_caught
            assert closed


async def test_other_tasks_run_beside_a_model_that_never_waits() -> None:
    async def restless(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        for _ in range(100):
            yield "x"

    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await checkpoint()
            turns += 1

    async with Client.of(restless) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        await client.ask("hi")
        assert turns >= 50
        tasks.cancel_scope.cancel()
