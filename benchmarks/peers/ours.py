"""gprochat_anyio through its public `Client`: `ask`, `stream` and `fan_out`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import perf_counter
from typing import Any

import gprochat_anyio
from gprochat_anyio import Client

from ._peer import Peer


class _Ours(Peer):
    anyio_scope = True

    async def open(self, url: str, at_once: int) -> None:
        self._at_once = at_once
        self._manager = Client(url, secret_key="", trust_env=False, max_connections=at_once)
        self._client = await self._manager.__aenter__()

    async def close(self) -> None:
        await self._manager.__aexit__(None, None, None)

    async def first_text(self, prompt: str) -> float:
        start, first = perf_counter(), 0.0
        async with self._client.stream(prompt) as chunks:
            async for _ in chunks:
                if not first:
                    first = perf_counter() - start
        return first


class Ask(_Ours):
    async def reply(self, prompt: str) -> int:
        return len((await self._client.ask(prompt)).text)


class Stream(_Ours):
    async def reply(self, prompt: str) -> int:
        characters = 0
        async with self._client.stream(prompt) as chunks:
            async for text in chunks:
                characters += len(text)
        return characters


class FanOut(_Ours):
    """One `fan_out` for all prompts."""

    async def reply(self, prompt: str) -> int:
        return await self.replies([prompt])

    async def replies(self, prompts: list[str]) -> int:
        characters = 0
        fan_out: Any = gprochat_anyio.fan_out
        async with fan_out(self._client, prompts, max_at_once=self._at_once) as events:
            events: AsyncIterator[Any]
            async for event in events:
                if isinstance(event, gprochat_anyio.Chunk):
                    characters += len(event.text)
                elif isinstance(event, gprochat_anyio.Failed):
                    raise event.error
        return characters
