"""A model in this process: its generator is closed before a cancellation, or a block, leaves."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from cancelling import turns_until
from loops import VIRTUAL_LOOPS
from support.models import Saying

from gprochat_anyio import Client, ReplyInterruptedError, ReplyStream, Retry, fan_out, gather, race
from gprochat_anyio.site import Turn
from gprochat_anyio.testing import at_every_checkpoint, injections, no_leaks
from gprochat_anyio.testing._injection import Injection, cancelled

virtual = pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)


async def ask(client: Client) -> None:
    await client.ask("hi")


async def stream(client: Client) -> None:
    async with client.stream("hi") as chunks:
        async for _ in chunks:
            pass


async def stream_to(client: Client) -> None:
    """Into a channel without room, of which a task of the caller's reads."""
    send, receive = anyio.create_memory_object_stream[str]()
    async with anyio.create_task_group() as tasks:
        with receive, send:
            await tasks.start(client.stream_to, "hi", send)
            async for _ in receive:
                pass


async def ask_many(client: Client) -> None:
    async with fan_out(client, ["hi"] * 3, max_at_once=2) as events:
        async for _ in events:
            pass


async def gathered(client: Client) -> None:
    await gather(client, ["hi"] * 2)


async def raced(client: Client) -> None:
    async with race(client, "hi") as chunks:
        await chunks.read()


OPERATIONS = [ask, stream, stream_to, ask_many, gathered, raced]


@pytest.mark.parametrize("operation", OPERATIONS)
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


@pytest.mark.parametrize("operation", OPERATIONS)
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


async def leave(chunks: ReplyStream) -> None:
    """Do nothing: the block is left."""


async def stop(chunks: ReplyStream) -> None:
    chunks.stop()


async def close(chunks: ReplyStream) -> None:
    await chunks.aclose()


@pytest.mark.parametrize("ending", [leave, stop, close])
@pytest.mark.parametrize("texts", [1, 3, 1000])
async def test_a_stream_that_is_left(
    ending: Callable[[ReplyStream], Awaitable[None]], texts: int
) -> None:
    """While the model waits, while it is on its way, and while it is paused."""
    waits = iter([checkpoint] * texts)
    model = Saying("x" * 1000, pause=lambda: next(waits, anyio.sleep_forever)(), endless=True)
    async with Client.of(model) as client:
        async with client.stream("hi") as chunks:
            await anyio.wait_all_tasks_blocked()
            assert model.running == 1
            await ending(chunks)
        assert model.running == 0


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
    async def restless(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        nonlocal closed
        try:
            while True:
                yield "x"
        finally:
            closed = True

    async with Client.of(restless, max_reply_size=None) as client:
        for operation in OPERATIONS:
            closed = False
            with anyio.move_on_after(0.01) as scope:
                await operation(client)
            assert scope.cancelled_caught
            assert closed


async def test_others_have_their_turns_beside_a_model_that_never_waits() -> None:
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


class Cleaning:
    """A model that cleans up for so many seconds, whatever happens."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.closed = False

    async def __call__(self, turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        try:
            yield "one"
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(self.seconds)
            self.closed = True


@virtual
@pytest.mark.parametrize(("seconds", "waited"), [(0.5, 0.5), (50, 1)])
async def test_cleaning_up_is_waited_for_at_most_a_second(seconds: float, waited: float) -> None:
    model = Cleaning(seconds)
    async with Client.of(model) as client:
        for operation in OPERATIONS:
            began = anyio.current_time()
            with anyio.move_on_after(3):
                await operation(client)
            assert anyio.current_time() - began == pytest.approx(3 + waited)
            assert model.closed == (seconds < 1)
            await anyio.sleep(100)
            assert model.closed
            model.closed = False


class Refusing:
    """An iterator that cannot be closed, or fails when it is."""

    def __init__(self, turns: tuple[Turn, ...]) -> None:
        self._texts = iter(["one", turns[-1].text])

    def __aiter__(self) -> Refusing:
        return self

    async def __anext__(self) -> str:
        await checkpoint()
        for text in self._texts:
            return text
        raise StopAsyncIteration


class FailingToClose(Refusing):
    async def aclose(self) -> None:
        raise ValueError("canary-of-the-prompt")


@virtual
async def test_an_iterator_that_cannot_be_closed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Client.of(Refusing) as client:
        assert (await client.ask("two")).text == "onetwo"
    assert "failed" not in caplog.text
    async with Client.of(FailingToClose) as client:
        assert (await client.ask("two")).text == "onetwo"
    assert f"the model failed to close: ValueError at {__file__}" in caplog.text
    assert "canary" not in caplog.text


@virtual
async def test_an_iterator_that_is_too_slow_to_close(caplog: pytest.LogCaptureFixture) -> None:
    class Slow(Refusing):
        async def aclose(self) -> None:
            await anyio.sleep(100)

    async with Client.of(Slow) as client:
        began = anyio.current_time()
        assert (await client.ask("two")).text == "onetwo"
        assert anyio.current_time() - began == pytest.approx(1)
    assert "the model took more than 1 s to close" in caplog.text


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("texts", [(), ("one",)])
async def test_an_interrupt_in_a_model_is_the_callers(
    kind: type[BaseException], texts: tuple[str, ...]
) -> None:
    interrupt = kind("by hand")

    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        for text in texts:
            yield text
        raise interrupt

    async with Client.of(model) as client:
        with pytest.raises(kind) as caught:
            await client.ask("hi")
        assert caught.value is interrupt


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_model_whose_own_task_is_cancelled() -> None:
    """The caller is not: it gets an error."""

    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        yield "one"
        task: asyncio.Task[Any] = asyncio.create_task(asyncio.sleep(100))
        task.cancel()
        await task

    async with Client.of(model, retry=Retry(attempts=1)) as client:
        with pytest.raises(ReplyInterruptedError, match="the model was cancelled") as caught:
            await client.ask("hi")
        assert caught.value.partial_text == "one"
