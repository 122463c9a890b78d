"""Cancellation is prompt.

A cancelled request leaves within `STEPS` turns of the event loop, for any number of cancelled
requests and any peer. It waits for nothing, so no time passes.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.cancelling import (
    FOUR_TEXTS,
    HEAD_ONLY,
    ONE_TEXT,
    OPERATIONS,
    SILENT,
    STEPS,
    Operation,
    Steps,
    stream,
    turns_until,
)
from support.loops import virtual
from support.prompted import pool_of
from support.servers import Peer, black_hole, client_context, open_sockets, serving

from gprochat_anyio import Client, Retry, fan_out
from gprochat_anyio.testing import scripted_site


@virtual
@pytest.mark.parametrize("script", [SILENT, HEAD_ONLY, ONE_TEXT, FOUR_TEXTS])
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("number", [1, 20])
async def test_a_deaf_site(operation: Operation, script: Steps, number: int) -> None:
    async with scripted_site(script) as site, site.client() as client:
        turns, seconds = await cancelled_after(operation, client, number)
        assert turns <= STEPS
        assert seconds == 0
        assert pool_of(client).statistics() == (1000, (), 0)


async def cancelled_after(operation: Operation, client: Client, number: int) -> tuple[int, float]:
    """Return the turns and seconds from the cancellation of a number of requests to the end of
    all."""
    ended = turns = 0
    seconds = 0.0

    async def run() -> None:
        nonlocal ended
        try:
            await operation(client)
        finally:
            ended += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(number):
            tasks.start_soon(run)
        await anyio.sleep(1)
        assert not ended
        began = anyio.current_time()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            turns = await turns_until(lambda: ended == number)
        seconds = anyio.current_time() - began
    return turns, seconds


@pytest.mark.slow
@virtual
@pytest.mark.parametrize("script", [SILENT, FOUR_TEXTS], ids=["opening", "streaming"])
async def test_many_streams(script: Steps, many: int) -> None:
    async with scripted_site(script) as site:
        async with site.client(max_connections=None) as client:
            turns, seconds = await cancelled_after(stream, client, many)
            assert site.connections == many
            assert turns <= STEPS
            assert seconds == 0


@pytest.mark.slow
@virtual
async def test_many_in_one_fan_out(many: int) -> None:
    async def ask_all(client: Client) -> None:
        async with fan_out(client, ["hi"] * many, max_at_once=many) as events:
            async for _ in events:
                pass

    async with scripted_site(FOUR_TEXTS) as site:
        async with site.client(max_connections=None) as client:
            turns, seconds = await cancelled_after(ask_all, client, 1)
            assert site.connections == many
            assert turns <= STEPS
            assert seconds == 0


@pytest.fixture
def many_descriptors() -> Iterator[int]:
    """Raise the limit of this process's descriptors, to at most 10,000. Yield the limit."""
    if sys.platform == "win32":
        yield 10_000  # unlimited
        return
    import resource  # noqa: PLC0415 - not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    raised = hard if 0 <= hard < 10_000 else max(soft, 10_000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    yield raised
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def unread(peer: Peer) -> None:
    """Neither read nor respond."""
    await anyio.sleep_forever()


@asynccontextmanager
async def deaf(kind: str) -> AsyncIterator[tuple[Client, Any]]:
    tls = kind == "handshake"
    async with serving(black_hole if tls else unread) as server:
        url = f"{'https' if tls else 'http'}://127.0.0.1:{server.port}"
        context = client_context() if tls else None
        settings: dict[str, Any] = {"ssl_context": context, "max_connections": None}
        async with Client(url, **settings, retry=Retry(attempts=1)) as client:
            yield client, server


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["handshake", "answer", "upload"])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "among many"])
async def test_real_sockets(kind: str, many: int, many_descriptors: int, *, alone: bool) -> None:
    """In a TLS handshake, waiting for a response, and in an upload that the peer does not read."""
    prompt = "x" * 8_000_000 if kind == "upload" else "hi"
    number = 1 if alone else min(many, 5 if kind == "upload" else many_descriptors // 3)
    ended = 0

    async def run() -> None:
        nonlocal ended
        try:
            await client.ask(prompt)
        finally:
            ended += 1

    with anyio.fail_after(20):
        async with deaf(kind) as (client, server):
            async with anyio.create_task_group() as tasks:
                for _ in range(number):
                    tasks.start_soon(run)
                await server.until(lambda: server.accepted == number)
                for _ in range(20):
                    await checkpoint()
                assert not ended
                tasks.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    assert await turns_until(lambda: ended == number) <= STEPS
            assert open_sockets(server.port) == 0
