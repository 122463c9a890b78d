"""Cancellation is never swallowed: the canceller observes it, and no trace of it remains."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.cancelling import (
    FOUR_TEXTS,
    ONE_TEXT,
    OPERATIONS,
    SILENT,
    STEPS,
    Operation,
    Steps,
    turns_until,
)
from support.loops import VIRTUAL_LOOPS, virtual

from gprochat_anyio import Client, Retry, Timeouts, fan_out, race
from gprochat_anyio.testing import scripted_site


@virtual
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("script", [SILENT, FOUR_TEXTS], ids=["opening", "streaming"])
async def test_by_scope(operation: Operation, script: Steps) -> None:
    """After a cancellation was caught, an outer timeout still works."""
    async with scripted_site(script) as site, site.client() as client:
        with anyio.move_on_after(10) as outer:
            with anyio.move_on_after(2) as inner:
                await operation(client)
            assert inner.cancelled_caught
            assert_clean()
            assert anyio.current_effective_deadline() == outer.deadline
            await anyio.sleep(1)
            with pytest.raises(TimeoutError):
                with anyio.fail_after(1):
                    await operation(client)
            assert_clean()
            await operation(client)
        assert outer.cancelled_caught
        assert_clean()
        await anyio.sleep(1)


@virtual
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_by_an_outer_scope_in_the_moment_of_a_timeout(operation: Operation) -> None:
    """A timeout of the library in the same moment does not hide the caller's cancellation."""
    limits = Timeouts(total=2)
    async with (
        scripted_site(FOUR_TEXTS) as site,
        site.client(timeouts=limits, retry=Retry(attempts=1)) as client,
    ):
        with anyio.CancelScope(deadline=anyio.current_time() + 2) as outer:
            with suppress(TimeoutError):
                await operation(client)
            await checkpoint()
            pytest.fail("the caller's own scope has run out")
        assert outer.cancelled_caught
        assert_clean()


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("script", [SILENT, FOUR_TEXTS], ids=["opening", "streaming"])
@pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS[:1], indirect=True)
async def test_by_native_cancellation(operation: Operation, script: Steps) -> None:
    async with scripted_site(script) as site, site.client() as client:
        task = asyncio.create_task(operation(client))
        await anyio.sleep(1)
        task.cancel("by its owner")
        assert await turns_until(task.done) <= STEPS
        assert task.cancelled()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await operation(client)
        assert_clean()


@virtual
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_cancelled_before_it_begins(operation: Operation) -> None:
    async with scripted_site(ONE_TEXT) as site, site.client() as client:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await operation(client)
        assert scope.cancelled_caught
        assert not site.requests


async def in_stream(client: Client, seen: list[BaseException]) -> None:
    async with client.stream("hi") as chunks:
        await until_cancelled(chunks, seen)


async def in_race(client: Client, seen: list[BaseException]) -> None:
    async with race([client], "hi") as chunks:
        await until_cancelled(chunks, seen)


async def in_fan_out(client: Client, seen: list[BaseException]) -> None:
    async with fan_out(client, ["hi"]) as events:
        await until_cancelled(events, seen)


async def until_cancelled(items: AsyncIterable[object], seen: list[BaseException]) -> None:
    try:
        async for _ in items:
            pass
    except BaseException as error:
        seen.append(error)
        raise


@pytest.mark.parametrize(
    ("anyio_backend", "native"),
    [*[(loop.values[0], False) for loop in VIRTUAL_LOOPS], (VIRTUAL_LOOPS[0].values[0], True)],
    ids=["asyncio", "trio", "natively"],
    indirect=["anyio_backend"],
)
@pytest.mark.parametrize("block", [in_stream, in_race, in_fan_out])
@pytest.mark.parametrize("script", [ONE_TEXT, FOUR_TEXTS], ids=["early", "watched"])
async def test_a_block_raises_the_identical_exception(
    block: Any, script: Steps, native: bool
) -> None:
    """The exception that cancelled the block leaves it, with its message."""
    seen: list[BaseException] = []
    left: list[BaseException] = []

    async def run() -> None:
        with scope:
            try:
                await block(client, seen)
            except BaseException as error:
                left.append(error)
                raise

    async with scripted_site(script) as site, site.client() as client:
        scope = anyio.CancelScope()
        if native:
            task = asyncio.create_task(run())
            await anyio.sleep(1)
            task.cancel("by its owner")
            await asyncio.wait([task])
            assert task.cancelled()
            assert left[0].args == ("by its owner",)
        else:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
                await anyio.sleep(1)
                scope.cancel()
            assert scope.cancelled_caught
    assert left == seen
    assert left[0] is seen[0]


def assert_clean() -> None:
    """Assert that the task has no pending cancellation."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return  # Trio's tasks have no such count
    assert task is None or task.cancelling() == 0
