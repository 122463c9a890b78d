"""Models that clean up slowly, cannot be closed, or are interrupted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.cancelling import ENDING
from support.loops import virtual

from gprochat_anyio import Client, ReplyInterruptedError, Retry, SiteError
from gprochat_anyio.site import Turn


class Cleaning:
    """A model whose cleanup takes a number of seconds, even if cancelled."""

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
async def test_cleanup_is_awaited_for_at_most_one_second(seconds: float, waited: float) -> None:
    model = Cleaning(seconds)
    async with Client.of(model) as client:
        for operation in ENDING:
            began = anyio.current_time()
            with anyio.move_on_after(3):
                await operation(client)
            assert anyio.current_time() - began == pytest.approx(3 + waited)
            assert model.closed == (seconds < 1)
            await anyio.sleep(100)
            assert model.closed
            model.closed = False


class Refusing:
    """An iterator without `aclose`, or whose `aclose` fails."""

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
async def test_an_interrupt_in_a_model_reaches_the_caller(
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
    """The caller is not cancelled: it gets an error."""

    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        yield "one"
        task: asyncio.Task[Any] = asyncio.create_task(asyncio.sleep(100))
        task.cancel()
        await task

    async with Client.of(model, retry=Retry(attempts=1)) as client:
        with pytest.raises(ReplyInterruptedError, match="the model was cancelled") as caught:
            await client.ask("hi")
        assert caught.value.partial_text == "one"


@virtual
async def test_a_models_own_deadline_expires_while_the_consumer_is_behind() -> None:
    """The model alone has to handle its scope's cancellation."""

    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        with anyio.move_on_after(1) as scope:
            yield "x" * 70_000
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        yield "end"

    async with Client.of(model) as client, client.stream("hi") as chunks:
        await anyio.sleep(2)
        assert (await chunks.read()).endswith("xend")


@virtual
async def test_a_models_own_task_fails() -> None:
    async def fail() -> None:
        await anyio.sleep(1)
        raise ValueError("canary")

    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail)
            while True:
                yield "a"
                await anyio.sleep(0.3)

    async with Client.of(model) as client:
        with pytest.raises(SiteError, match="The model failed") as caught:
            await client.ask("hi")
    assert caught.value.partial_text == "aaaa"


@virtual
async def test_a_model_that_ignores_its_own_deadline() -> None:
    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        with anyio.move_on_after(0):
            while True:
                yield "a"

    async with Client.of(model) as client:
        with pytest.raises((SiteError, ReplyInterruptedError)):
            await client.ask("hi")
