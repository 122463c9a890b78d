"""A fleet of one behaves like its client, in virtual time."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import astuple
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from support.fleets import FAILS
from support.loops import virtual

from gprochat_anyio import (
    Client,
    Fleet,
    GPROChatError,
    Limiter,
    LimiterStatistics,
    Outcome,
    Reply,
    Retry,
    Timeouts,
    Timing,
    fan_out,
    gather,
)
from gprochat_anyio.testing import Drop, Hang, Pause, Refuse, Say, scripted_site
from gprochat_anyio.testing import Reply as Scripted

# Trio runs tasks in a random order, so two fan-outs are not alike.
ordered = pytest.mark.parametrize("anyio_backend", ["asyncio-virtual"], indirect=True)

Either = Client | Fleet
Use = Callable[[Either], Awaitable[Any]]

REPLY: Scripted = [Pause(1), Say("he"), Pause(1), Say("re")]


async def ask(client: Either) -> Reply:
    return await client.ask("hi")


async def ask_twice(client: Either) -> list[Reply]:
    return [await client.ask("hi"), await client.ask("hi")]


async def stream(client: Either) -> Any:
    async with client.stream("hi", timeouts=Timeouts(idle=2)) as chunks:
        return [chunk async for chunk in chunks], chunks.timing


async def leave_early(client: Either) -> Any:
    async with client.stream("hi") as chunks:
        return await chunks.receive()


async def stream_to(client: Either) -> Any:
    send, receive = anyio.create_memory_object_stream[tuple[str, str]](10)
    with receive:
        reply = await client.stream_to("hi", send, tag="t")
        return reply, [receive.receive_nowait()]


async def cancel(client: Either) -> bool:
    with anyio.move_on_after(1.5) as scope:
        await client.ask("hi")
    return scope.cancelled_caught


async def gather_many(client: Either) -> Any:
    limiter = Limiter(max_at_once=3, max_per_second=2)
    outcomes = await gather(client, map(str, range(12)), limiter=limiter, max_at_once=6)
    return ends(outcomes), limiter.statistics()


async def gather_adaptively(client: Either) -> Any:
    return ends(await gather(client, map(str, range(12)), max_at_once=6))


def ends(outcomes: list[Outcome]) -> list[Any]:
    return [outcome.reply or repr(outcome.error) for outcome in outcomes]


async def fan_out_without_room(client: Either) -> None:
    fan_out(client, ["hi"])


ONCE: dict[str, tuple[Scripted, ...]] = {
    "answers": (REPLY,),
    "down": (FAILS,),
    "down, then back": (FAILS, FAILS, REPLY),
    "asks to wait": (Refuse(429, "slow", 20), REPLY),
    "asks to wait for too long": (Refuse(429, "slow", 50),),
    "is limited": (Refuse(429, "slow"), Refuse(429, "slow"), REPLY),
    "rejects the key": (Refuse(401, "key"),),
    "refuses the prompt": (Refuse(400, "prompt"),),
    "gives no text": ("",),
    "is silent": (Hang(),),
    "falls silent": ([Say("he"), Hang()],),
    "breaks off": ([Say("he"), Drop()],),
    "drops": (Drop(),),
    "drops a kept connection": (REPLY, Drop(), REPLY),
}

SETTINGS: dict[str, Any] = {
    "timeouts": Timeouts(connect=3, first_chunk=5, idle=4, total=30),
    "retry": Retry(attempts=3, backoff=1),
}


async def seen(
    use: Use,
    replies: tuple[Scripted, ...],
    caplog: pytest.LogCaptureFixture,
    *,
    in_fleet: bool,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Return everything that a client's user, its site and its log observe."""
    caplog.clear()
    random.seed(1)  # the jitter of retries
    found: dict[str, Any] = {}
    made = {name: make() for name, make in settings.items()}
    async with scripted_site(*replies, url="https://one.test", connect_after=0.5) as site:
        own = site.client(**SETTINGS | made)
        either: Either = Fleet([own], eject_after=1, hedge_after=1) if in_fleet else own
        async with either as client:
            began = anyio.current_time()
            try:
                found["result"] = await use(client)
            except (GPROChatError, ValueError) as error:
                found["error"] = repr(error), getattr(error, "__notes__", None), vars(error)
            found["took"] = anyio.current_time() - began
            await anyio.lowlevel.checkpoint()
            found["connections"] = site.connections, site.open_connections
        found["requests"] = [(round(r.time - began, 6), r.outcome) for r in site.requests]
    for name, one in made.items():
        if isinstance(one, Limiter):
            found[name] = one.statistics()
    found["events"] = [
        {k: v for k, v in vars(record).items() if k.startswith("gprochat_") and "request" not in k}
        for record in caplog.records
        if not record.getMessage().startswith("fleet.")
    ]
    return found


async def check_like(
    use: Use,
    replies: tuple[Scripted, ...],
    caplog: pytest.LogCaptureFixture,
    **settings: Callable[[], Any],
) -> dict[str, Any]:
    """Assert that a fleet of one behaves like its client. Return the observations."""
    caplog.set_level(logging.DEBUG, "gprochat_anyio")
    alone = await seen(use, replies, caplog, in_fleet=False, settings=settings)
    assert alone["events"] or "error" in alone
    in_fleet = await seen(use, replies, caplog, in_fleet=True, settings=settings)
    assert rounded(in_fleet) == rounded(alone)
    return alone


def rounded(value: Any) -> Any:
    """Return a value with its times rounded to the precision of a sum."""
    match value:
        case float():
            return round(value, 6)
        case Reply() | Timing() | LimiterStatistics():
            return rounded(astuple(value))
        case dict():
            return {key: rounded(one) for key, one in value.items()}
        case list() | tuple():
            return [rounded(one) for one in value]
        case _:
            return value


@virtual
@pytest.mark.parametrize("use", [ask, stream])
@pytest.mark.parametrize("case", ONCE)
async def test_for_all_replies(case: str, use: Use, caplog: pytest.LogCaptureFixture) -> None:
    await check_like(use, ONCE[case], caplog)


@virtual
@pytest.mark.parametrize(
    ("use", "replies"),
    [
        (ask_twice, ONCE["drops a kept connection"]),
        (stream_to, ("here",)),
        (stream_to, ([Say("he"), Drop()],)),
        (cancel, (REPLY,)),
        (leave_early, (REPLY,)),
    ],
)
async def test_for_all_callers(
    use: Use, replies: tuple[Scripted, ...], caplog: pytest.LogCaptureFixture
) -> None:
    await check_like(use, replies, caplog)


@ordered
@pytest.mark.parametrize(
    ("use", "replies"),
    [
        (gather_many, ("here", FAILS, "here", Refuse(429, "slow", 3), "here")),
        (gather_adaptively, (REPLY, Refuse(429, "slow"), Refuse(429, "slow", 2), REPLY)),
    ],
)
async def test_for_a_fan_out(
    use: Use, replies: tuple[Scripted, ...], caplog: pytest.LogCaptureFixture
) -> None:
    await check_like(use, replies, caplog)


@ordered
async def test_with_a_limiter_of_the_client(caplog: pytest.LogCaptureFixture) -> None:
    found = await check_like(
        gather_adaptively,
        (REPLY, Refuse(429, "slow"), FAILS, REPLY),
        caplog,
        limiter=lambda: Limiter(max_at_once=2, max_per_second=1),
    )
    assert found["took"] > 12


@ordered
async def test_with_few_connections(caplog: pytest.LogCaptureFixture) -> None:
    found = await check_like(gather_adaptively, (REPLY,), caplog, max_connections=lambda: 2)
    assert found["connections"][0] == 2
    found = await check_like(fan_out_without_room, (REPLY,), caplog, max_connections=lambda: 1)
    assert "max_connections" in found["error"][0]
