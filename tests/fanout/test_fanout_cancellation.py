"""Cancellation anywhere in a fan-out: no task, socket or slot is left, and the next request
succeeds."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.blocked import all_tasks_blocked
from support.prompted import closed, pool_of, prompted
from support.servers import open_sockets

from gprochat_anyio import Chunk, Client, Retry, as_completed, fan_out, gather
from gprochat_anyio.testing import (
    Drop,
    Hang,
    Injection,
    Refuse,
    Request,
    Say,
    Script,
    cancelled,
    injections,
)

pytestmark = pytest.mark.usefixtures("no_garbage_collector")


def answer(request: Request) -> Script:
    scripts: dict[str, Script] = {
        "long": [Say("text"), checkpoint] * 4,
        "endless": [Say("text"), Hang()],
        "silent": Hang(),
        "refused": Refuse(429, "slow down", retry_after=1),
        "cut": [Say("text"), Drop()],
    }
    return scripts.get(request.prompt, request.prompt)


async def prompts(*texts: str) -> AsyncGenerator[str]:
    for text in texts:
        await checkpoint()
        yield text


async def all_events(client: Client) -> None:
    async with fan_out(client, ["a", "long", "cut", " ", "b"], max_at_once=2) as events:
        async for _ in events:
            pass


async def left_early(client: Client) -> None:
    async with fan_out(client, prompts("a", "endless", "silent", "long"), max_at_once=3) as events:
        async for event in events:
            if isinstance(event, Chunk) and event.text == "text":
                break


async def all_outcomes(client: Client) -> None:
    async with as_completed(client, prompts("a", "long", "b"), max_at_once=1) as outcomes:
        async for _ in outcomes:
            await checkpoint()


async def as_a_list(client: Client) -> None:
    await gather(client, ["long", "a", "cut"])


async def slowed_down(client: Client) -> None:
    with anyio.move_on_after(0.02):
        await gather(client, ["a", "refused", "b"], max_per_second=200)


async def full(client: Client) -> None:
    async with fan_out(client, ["long"] * 4, max_at_once=2) as events:
        await all_tasks_blocked()
        await events.receive()
        await checkpoint()


@pytest.mark.slow
@pytest.mark.parametrize(
    "operation", [all_events, left_early, all_outcomes, as_a_list, slowed_down, full]
)
async def test_at_every_suspension(operation: Callable[[Client], Awaitable[None]]) -> None:
    async with prompted(answer, retry=Retry(attempts=2, backoff=0)) as (_, site):
        port = int(site.url.rpartition(":")[2])
        for moment, native in injections():
            end, at = "", 0
            while end != "not reached":
                at += 1
                client = Client(site.url, retry=Retry(attempts=2, backoff=0), max_connections=3)
                end = await cancelled(Injection(at, moment, native), partial(operation, client))
                place = f"at {at}, {moment}, {'native' if native else 'scope'}"
                slots, idle, waiting = pool_of(client).statistics()
                assert open_sockets(port) == len(idle), f"a socket is open: {place}"
                assert (slots, waiting) == (3, 0), f"a slot is lost: {place}"
                assert (await client.ask("next")).text == "next", place
                await client.aclose()
                await closed(site)
            assert at > 3


@pytest.mark.slow
async def test_at_every_tick_of_the_group() -> None:
    async with prompted(answer) as (_, site):
        port = int(site.url.rpartition(":")[2])
        for ticks in range(30):
            async with Client(site.url, max_connections=4) as client:
                async with anyio.create_task_group() as tasks:
                    for operation in (all_events, left_early, as_a_list):
                        tasks.start_soon(operation, client)
                    for _ in range(ticks):
                        await checkpoint()
                    tasks.cancel_scope.cancel()
                assert (await client.ask("next")).text == "next"
            assert open_sockets(port) == 0
            await closed(site)


@pytest.mark.slow
async def test_five_hundred_at_once() -> None:
    async with prompted(answer) as (client, site):
        port = int(site.url.rpartition(":")[2])
        async with fan_out(client, ["endless"] * 500, max_at_once=500) as events:
            for _ in range(500):
                await events.receive()
            assert open_sockets(port) == 500
        assert open_sockets(port) == 0
        await closed(site)
