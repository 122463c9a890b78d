"""Host names are resolved even if all of the application's worker threads are busy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Event

import anyio
import pytest
from anyio import to_thread
from support.blocked import all_tasks_blocked
from support.loops import LOOPS
from support.scripted import reply
from support.servers import Server, repeating, serving

from gprochat_anyio import Client, Retry, Timeouts

ON_ASYNCIO = pytest.mark.parametrize(
    "anyio_backend", [loop for loop in LOOPS if loop.id != "trio"], indirect=True
)


def client_of(server: Server) -> Client:
    """Return a client of a server given by name, with a short connect timeout."""
    return Client(
        f"http://localhost:{server.port}",
        trust_env=False,
        timeouts=Timeouts(connect=1),
        retry=Retry(attempts=1),
    )


async def wait_in_a_thread(leave: Event) -> None:
    await to_thread.run_sync(leave.wait)


@asynccontextmanager
async def default_limiter_in_use() -> AsyncIterator[None]:
    """Occupy every thread of AnyIO's default limiter."""
    limiter = to_thread.current_default_thread_limiter()
    leave = Event()
    async with anyio.create_task_group() as tasks:
        before = limiter.total_tokens
        limiter.total_tokens = 2
        for _ in range(3):  # one of them waits
            tasks.start_soon(wait_in_a_thread, leave)
        while limiter.available_tokens or not limiter.statistics().tasks_waiting:
            await all_tasks_blocked()
        try:
            yield
        finally:
            leave.set()
            limiter.total_tokens = before


@asynccontextmanager
async def default_executor_in_use() -> AsyncIterator[None]:
    """Occupy every thread of asyncio's default executor."""
    loop = asyncio.get_running_loop()
    leave = Event()
    busy = [loop.run_in_executor(None, leave.wait) for _ in range(64)]  # it has at most 32
    try:
        yield
    finally:
        leave.set()
        await asyncio.gather(*busy)


async def test_with_anyios_default_limiter_in_use() -> None:
    with anyio.fail_after(10):
        async with serving(repeating(reply("text"))) as server, client_of(server) as client:
            async with default_limiter_in_use():
                assert (await client.ask("hi")).text == "text"


@ON_ASYNCIO
async def test_with_asyncios_default_executor_in_use() -> None:
    with anyio.fail_after(10):
        async with serving(repeating(reply("text"))) as server, client_of(server) as client:
            async with default_executor_in_use():
                assert (await client.ask("hi")).text == "text"


@ON_ASYNCIO
async def test_with_both_in_use_and_many_at_once() -> None:
    texts: list[str] = []
    with anyio.fail_after(10):
        async with serving(repeating(reply("text"))) as server, client_of(server) as client:
            async with default_executor_in_use(), default_limiter_in_use():
                async with anyio.create_task_group() as tasks:

                    async def ask() -> None:
                        texts.append((await client.ask("hi")).text)

                    for _ in range(30):
                        tasks.start_soon(ask)
    assert texts == ["text"] * 30
