"""What there is to cancel, and how many turns of the event loop it takes to end."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from gprochat_anyio import Client, fan_out, gather, race
from gprochat_anyio.testing import Hang, Pause, Say, Step

STEPS = 8
"""Turns of the event loop from a cancellation to its end: one to deliver it, the rest for what
closes in turn (streams, task groups, and the channel or the race around them)."""

Operation = Callable[[Client], Coroutine[Any, Any, object]]

Steps = list[Step]

SILENT: Steps = [Hang()]
HEAD_ONLY: Steps = [Say(""), Hang()]
ONE_TEXT: Steps = [Say("one"), Hang()]
FOUR_TEXTS: Steps = [*[Say("one"), Pause(0.001)] * 4, Hang()]


async def ask(client: Client) -> None:
    await client.ask("hi")


async def stream(client: Client) -> None:
    async with client.stream("hi") as chunks:
        await chunks.read()


async def stream_to(client: Client) -> None:
    send, receive = anyio.create_memory_object_stream[str]()  # nobody reads
    with receive:
        await client.stream_to("hi", send)


async def piped(client: Client) -> None:
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
    await gather(client, ["hi"] * 3)


async def raced(client: Client) -> None:
    async with race(client, "hi") as chunks:
        await chunks.read()


OPERATIONS = [ask, stream, stream_to, ask_many, gathered, raced]
ENDING = [ask, stream, piped, ask_many, gathered, raced]
"""Operations that end when their replies do."""


async def turns_until(done: Callable[[], bool]) -> int:
    """How many turns of the event loop it takes, with all of its tasks in each."""
    for turns in range(1, 1000):
        await checkpoint()
        if done():
            return turns
    raise AssertionError("a thousand turns, and no end")
