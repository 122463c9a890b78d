"""Streams closed while they are entered, by another thread, or by a finalizer."""

from __future__ import annotations

import asyncio
import gc
import sys
import warnings
from typing import Any

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint
from support.prompted import closed, prompted

from gprochat_anyio.testing import Hang, Say

OPEN_ENDED = [Say("one"), Hang()]


async def test_closed_while_it_is_entered() -> None:
    go_on = anyio.Event()
    async with prompted([go_on.wait, Say("one"), Hang()]) as (client, site):
        chunks = client.stream("hi")

        async def enter() -> None:
            with pytest.raises(anyio.ClosedResourceError, match="while it was entered"):
                await chunks.__aenter__()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(enter)
            while not site.open_connections:
                await checkpoint()
            await chunks.aclose()
            go_on.set()
        await closed(site)


async def test_stopped_while_it_is_entered() -> None:
    go_on = anyio.Event()
    async with prompted([go_on.wait, Say("one"), Hang()]) as (client, site):
        chunks = client.stream("hi")

        async def enter() -> None:
            async with chunks:
                assert [chunk async for chunk in chunks] == []

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(enter)
            while not site.open_connections:
                await checkpoint()
            chunks.stop()
            go_on.set()
        await closed(site)


async def test_not_from_another_thread() -> None:
    async with prompted(OPEN_ENDED) as (client, site):
        async with client.stream("hi") as chunks:
            for way in (chunks.aclose, chunks.__aexit__):
                args = () if way == chunks.aclose else (None, None, None)
                with pytest.raises(RuntimeError, match="from another thread"):
                    await to_thread.run_sync(asyncio.run, way(*args))
            with pytest.raises(RuntimeError, match="from another thread"):
                await to_thread.run_sync(chunks.receive_nowait)
            assert chunks.receive_nowait() == "one"
        await closed(site)


@pytest.mark.slow
async def test_a_warning_raised_as_an_error_does_not_leak_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raised: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: raised.append(what.exc_type))
    async with prompted(OPEN_ENDED) as (client, site):
        chunks = client.stream("hi")
        await chunks.__aenter__()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del chunks
            gc.collect()
        await closed(site)
    assert raised == [ResourceWarning]
