"""Operations to cancel, and the number of event loop turns until they end."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from gprochat_anyio import Client, fan_out, gather, race
from gprochat_anyio.testing import Hang, Pause, Say, Step

STEPS = 8
"""Maximum number of event loop turns from a cancellation to its end: one to deliver it, the rest
for closing streams, task groups, and the channel or the race around them."""

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
    send, receive = anyio.create_memory_object_stream[str]()  # without a receiver
    with receive:
        await client.stream_to("hi", send)


async def piped(client: Client) -> None:
    """Stream to a channel without a buffer, from which a task of the caller receives."""
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
"""Operations that end with their replies."""


async def turns_until(done: Callable[[], bool]) -> int:
    """Return the number of event loop turns until a condition holds. All tasks run in each turn."""
    for turns in range(1, 1000):
        await checkpoint()
        if done():
            return turns
    raise AssertionError("not done within a thousand turns")
