"""gprochat_anyio through its public `Client`: `ask`, `stream`, `stream_to` and `fan_out`.

The classes over events make the same calls with `Client.openai`.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio

import gprochat_anyio
from gprochat_anyio import Client

from ._peer import Peer, Take

ROOM = 16
"""Capacity of the channel of `stream_to`, in pieces of text."""


class _Ours(Peer):
    anyio_scope = True

    async def open(self, url: str, at_once: int) -> None:
        self._at_once = at_once
        self._manager = self._make(url, at_once + 1)
        self._client = await self._manager.__aenter__()

    def _make(self, url: str, connections: int) -> Client:
        return Client(url, secret_key="", trust_env=False, max_connections=connections)

    async def close(self) -> None:
        await self._manager.__aexit__(None, None, None)


class Ask(_Ours):
    streams = False

    async def reply(self, prompt: str, take: Take) -> None:
        take((await self._client.ask(prompt)).text)


class Stream(_Ours):
    async def reply(self, prompt: str, take: Take) -> None:
        async with self._client.stream(prompt) as chunks:
            async for text in chunks:
                take(text)


class _OverEvents(_Ours):
    def _make(self, url: str, connections: int) -> Client:
        return Client.openai(
            url + "/v1", model="bench", trust_env=False, max_connections=connections
        )


class AskOverEvents(_OverEvents, Ask): ...


class StreamOverEvents(_OverEvents, Stream): ...


class StreamTo(_Ours):
    """`stream_to`, with a task group and a channel for each request."""

    async def reply(self, prompt: str, take: Take) -> None:
        async with anyio.create_task_group() as tasks:
            send, receive = anyio.create_memory_object_stream[str](ROOM)
            tasks.start_soon(self._client.stream_to, prompt, send)
            async with receive:
                async for text in receive:
                    take(text)


class FanOut(_Ours):
    """One `fan_out` for all prompts."""

    async def reply(self, prompt: str, take: Take) -> None:
        await self.replies(prompt, [take])

    async def replies(self, prompt: str, takes: Sequence[Take]) -> None:
        prompts = [prompt] * len(takes)
        async with gprochat_anyio.fan_out(
            self._client, prompts, max_at_once=self._at_once
        ) as events:
            async for event in events:
                if isinstance(event, gprochat_anyio.Chunk):
                    takes[event.index](event.text)
                elif isinstance(event, gprochat_anyio.Failed):
                    raise event.error
