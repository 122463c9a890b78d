"""The consumer of a fan-out can always send requests, even if all replies wait for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.prompted import AtOnce, closed, pool_of, prompted

from gprochat_anyio import (
    Chunk,
    Client,
    Failed,
    Finished,
    Limiter,
    Retry,
    as_completed,
    fan_out,
    gather,
    race,
)
from gprochat_anyio.testing import Hang, Refuse, Request, Say, Script

LARGE = 40 * 30_000
"""Size of a reply that waits for its consumer: more than 64 KiB, the channel and the sockets
hold."""


def large(request: Request) -> Script:
    """Return a large reply, or echo a prompt of the consumer."""

    def pieces() -> Iterator[Say]:
        for _ in range(40):
            yield Say(request.prompt * 30_000)

    return request.prompt if request.prompt.startswith("and ") else pieces()


async def consume(
    client: Client, prompts: str, max_at_once: int, ask: Callable[[str], Any], **settings: Any
) -> None:
    """Send requests within the loop over the events, while all replies wait for the consumer."""
    sizes: dict[int, int] = {}
    asked = 0
    async with fan_out(client, list(prompts), max_at_once=max_at_once, **settings) as events:
        for _ in range(200):  # until all replies wait
            await checkpoint()
        async for event in events:
            assert not isinstance(event, Failed), event.error
            if isinstance(event, Chunk):
                sizes[event.index] = sizes.get(event.index, 0) + len(event.text)
                if asked % 8 == 0:
                    await ask(f"and {asked}")
                asked += 1
            else:
                assert isinstance(event, Finished)
                await ask("and the end")
    assert sizes == dict.fromkeys(range(len(prompts)), LARGE)


async def asked(client: Client, prompt: str) -> None:
    assert (await client.ask(prompt)).text == prompt


@pytest.mark.parametrize("at_once", [2, 3])
async def test_with_as_many_connections_as_requests(at_once: int) -> None:
    most = AtOnce(large)
    async with prompted(most, max_connections=at_once) as (client, _):
        await consume(client, "abcdef", at_once, partial(asked, client))
        assert most.most == at_once


@pytest.mark.parametrize("at_once", [2, 3])
@pytest.mark.parametrize("given", [False, True])
async def test_with_as_many_starts_as_requests(at_once: int, *, given: bool) -> None:
    limiter = Limiter(max_at_once=at_once)
    most = AtOnce(large)
    async with prompted(most, limiter=limiter) as (client, _):
        settings = {"limiter": limiter} if given else {}
        await consume(client, "abcdef", at_once, partial(asked, client), **settings)
        assert most.most == at_once
        assert limiter.statistics().running == 0


async def test_with_a_site_that_accepts_fewer() -> None:
    """The limit drops to one. A reply that waits does not block the consumer's requests."""
    limiter = Limiter(max_at_once=4)

    def answer(request: Request) -> Script:
        running = [r for r in site.requests if r.outcome == "running" and len(r.prompt) == 1]
        return Refuse(429, "") if running[1:] and len(request.prompt) == 1 else large(request)

    async with prompted(answer, limiter=limiter, retry=Retry(backoff=0)) as (client, site):
        await consume(client, "abc", 4, partial(asked, client))
        assert limiter.statistics().refusals


async def test_by_every_way_of_asking() -> None:
    async with prompted(large, max_connections=2) as (client, _):

        async def ask(prompt: str) -> None:
            await asked(client, prompt)
            async with client.stream(prompt) as chunks:
                assert await chunks.read() == prompt
            async with race(client, prompt) as chunks:
                assert await chunks.read() == prompt
            assert [o.unwrap().text for o in await gather(client, [prompt] * 3)] == [prompt] * 3

        await consume(client, "ab", 2, ask)


@pytest.mark.parametrize("settings", [{"max_connections": 3}, {"limiter": 3}])
async def test_two_fan_outs_whose_consumers_both_ask(settings: dict[str, int]) -> None:
    given: dict[str, Any] = dict(settings)
    if "limiter" in given:
        given["limiter"] = Limiter(max_at_once=given["limiter"])
    async with prompted(large, **given) as (client, site):
        async with anyio.create_task_group() as tasks:
            for prompts in ("abcd", "efgh"):
                tasks.start_soon(consume, client, prompts, 3, partial(asked, client))
        await client.aclose()
        await closed(site)


async def test_nested_fan_outs() -> None:
    """The inner fan-out uses the connection that the outer one leaves free."""
    async with prompted(large, max_connections=2) as (client, _):
        async with fan_out(client, ["a", "b"], max_at_once=2) as outer:
            async for event in outer:
                if isinstance(event, Finished):
                    async with as_completed(client, ["and 1", "and 2"], max_at_once=2) as inner:
                        texts = sorted([outcome.unwrap().text async for outcome in inner])
                        assert texts == ["and 1", "and 2"]


@pytest.mark.parametrize("make", [fan_out, as_completed])
async def test_two_fan_outs_share_a_client_fairly(make: Any) -> None:
    """At any time each has started half of the requests, give or take the concurrent ones."""
    async with prompted(max_connections=4) as (client, site):

        async def run(name: str) -> None:
            prompts = (f"{name}{number}" for number in range(60))
            async with make(client, prompts, max_at_once=4) as results:
                async for _ in results:
                    pass

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, "a")
            tasks.start_soon(run, "b")
        names = [request.prompt[0] for request in site.requests]
        for place in range(8, 100):
            assert abs(names[:place].count("a") - names[:place].count("b")) <= 16


async def test_no_room_for_the_consumer() -> None:
    limiter = Limiter(max_at_once=1)
    async with prompted(max_connections=1) as (client, _):
        with pytest.raises(ValueError, match="max_connections of at least 2, or use as_completed"):
            fan_out(client, ["a"], max_at_once=1)
        async with as_completed(client, ["a", "b"]) as outcomes:
            assert [outcome.unwrap().text async for outcome in outcomes] == ["a", "b"]
        assert len(await gather(client, ["a", "b"])) == 2
    async with prompted(limiter=limiter) as (client, _):
        for given in (None, limiter, Limiter(max_at_once=5)):
            with pytest.raises(ValueError, match="max_at_once of at least 2, or use as_completed"):
                fan_out(client, ["a"], limiter=given)
        assert len(await gather(client, ["a", "b"])) == 2
        assert [o.unwrap().text for o in await gather(client, ["a"], limiter=limiter)] == ["a"]


async def test_cancellation_frees_all_starts_and_connections() -> None:
    limiter = Limiter(max_at_once=3)
    async with prompted([Say("one"), Hang()], max_connections=3, limiter=limiter) as (client, site):
        for _ in range(3):
            async with fan_out(client, list("abcdef"), max_at_once=3) as events:
                await events.receive()
                await events.receive()
                assert limiter.statistics().running == 2  # one is reserved for the consumer
            assert (limiter.statistics().running, limiter.statistics().waiting) == (0, 0)
            assert pool_of(client).statistics().available == 3
        await closed(site)
