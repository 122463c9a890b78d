"""The end of a ReplyStream before its reply's end: leaving, stopping, closing."""

from __future__ import annotations

import contextvars
import gc
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint, current_token
from support.blocked import all_tasks_blocked
from support.exceptions import BoomError
from support.prompted import closed
from support.streams import OPEN_ENDED, client_of


@pytest.mark.parametrize("left_after", [0, 1])
async def test_leaving_closes_the_connection(left_after: int) -> None:
    async with client_of(OPEN_ENDED) as (client, site):
        async with client.stream("hi") as chunks:
            if left_after:
                async for _ in chunks:
                    break
        await closed(site)
        assert chunks.text == "one" * left_after


async def test_the_callers_exception_is_not_wrapped() -> None:
    boom = BoomError()
    async with client_of(OPEN_ENDED) as (client, site):
        with pytest.raises(BoomError) as caught:
            async with client.stream("hi"):
                raise boom
        assert caught.value is boom
        assert caught.value.__context__ is None
        await closed(site)


async def test_the_callers_group_is_not_wrapped() -> None:
    group = ExceptionGroup("mine", [BoomError()])
    async with client_of(OPEN_ENDED) as (client, _):
        with pytest.raises(ExceptionGroup) as caught:
            async with client.stream("hi"):
                raise group
        assert caught.value is group


async def test_the_callers_cancellation() -> None:
    async with client_of(OPEN_ENDED) as (client, site):
        with anyio.CancelScope() as scope:
            async with client.stream("hi") as chunks:
                await chunks.receive()
                scope.cancel()
                await chunks.receive()
        assert scope.cancelled_caught
        await closed(site)


async def test_an_exception_takes_precedence_over_a_cancelled_scope() -> None:
    boom = BoomError()
    async with client_of(OPEN_ENDED) as (client, site):
        with anyio.CancelScope() as scope, pytest.raises(BoomError) as caught:
            async with client.stream("hi"):
                scope.cancel()
                raise boom
        assert caught.value is boom
        await closed(site)


async def test_cancelling_ask_closes_the_connection() -> None:
    async with client_of(OPEN_ENDED) as (client, site):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.ask, "hi")
            while not site.requests:
                await checkpoint()
            tasks.cancel_scope.cancel()
        await closed(site)


async def test_stop_from_another_task() -> None:
    async with client_of(OPEN_ENDED) as (client, site):
        async with client.stream("hi") as chunks, anyio.create_task_group() as tasks:

            async def stop() -> None:
                while not chunks.text:
                    await checkpoint()
                chunks.stop()

            tasks.start_soon(stop)
            assert [piece async for piece in chunks] == ["one"]
            await closed(site)
        assert chunks.text == "one"


async def test_stop_from_a_callback_of_the_event_loop() -> None:
    """Like a signal handler, it has neither a task nor a context."""
    async with client_of(OPEN_ENDED) as (client, site):
        async with client.stream("hi") as chunks:
            assert await chunks.receive() == "one"
            loop: Any = current_token().native_token
            if hasattr(loop, "call_soon"):
                loop.call_soon(chunks.stop, context=contextvars.Context())
            else:
                loop.run_sync_soon(chunks.stop)
            assert await chunks.read() == ""
            await closed(site)


async def test_stop_discards_buffered_text() -> None:
    async with client_of(OPEN_ENDED) as (client, _):
        async with client.stream("hi") as chunks:
            chunks.stop()
            assert await chunks.read() == ""
            assert chunks.text == ""


async def test_stop_before_anything_is_read() -> None:
    async with client_of(OPEN_ENDED, "b") as (client, site):
        async with client.stream("hi") as chunks:
            chunks.stop()
        await closed(site)
        async with client.stream("hi") as chunks:
            chunks.stop()
            assert await chunks.read() == ""


async def test_closed_from_another_task() -> None:
    async with client_of(OPEN_ENDED) as (client, site):
        async with client.stream("hi") as chunks, anyio.create_task_group() as tasks:
            await chunks.receive()
            tasks.start_soon(chunks.aclose)
            with pytest.raises(anyio.ClosedResourceError, match="closed"):
                await chunks.receive()
            await closed(site)
        with pytest.raises(anyio.ClosedResourceError):
            await chunks.receive()
        assert chunks.text == "one"


async def test_left_by_another_task_and_in_any_order() -> None:
    """The block owns no task group and no cancel scope."""
    async with client_of(OPEN_ENDED) as (client, site):
        first, second = client.stream("hi"), client.stream("hi")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.__aenter__)
            await all_tasks_blocked()
            await second.__aenter__()
            assert await first.receive() == "one"
            await first.__aexit__(None, None, None)
            assert await second.receive() == "one"
            tasks.start_soon(second.__aexit__, None, None, None)
        await closed(site)
        for chunks in (first, second):
            with pytest.raises(anyio.ClosedResourceError):
                await chunks.receive()


async def test_nothing_is_left_open() -> None:
    async with client_of(OPEN_ENDED) as (client, _):
        async with client.stream("hi") as chunks:
            await chunks.receive()
        del chunks
        gc.collect()  # an open channel would warn, and a warning fails the test
