"""Requests to a site's OpenAI endpoint, and models that follow steps or wait."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio

from gprochat_anyio.site import Turn

from .site_wire import Seen, connected

HELLO = [{"role": "user", "content": "Hello you"}]


def request(body: Any = None, path: str = "/v1/chat/completions", *, key: str = "") -> bytes:
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = [
        f"{'GET' if body is None else 'POST'} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/json; charset=utf-8",
        f"Content-Length: {len(data)}",
    ]
    if key:
        fields.append(f"Authorization: {key}")
    return "\r\n".join(fields).encode() + b"\r\n\r\n" + data


def asking(**fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": HELLO, **fields}


async def ask(port: int, *given: Any, **options: Any) -> Seen:
    async with connected(port) as wire:
        await wire.stream.send(request(*given, **options))
        return await wire.read()


def model_of(*steps: Any) -> Any:
    """Return a model that yields texts, awaits functions and raises errors, in order."""

    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        for step in steps:
            if isinstance(step, str):
                yield step
            elif isinstance(step, Exception):
                raise step
            else:
                await step()

    return model


class Watched:
    """A model that yields `before`, then waits forever, with events for its start and end."""

    def __init__(self, *before: str) -> None:
        self.started = anyio.Event()
        self.stopped = anyio.Event()
        self._before = before

    async def __call__(self, turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        try:
            for text in self._before:
                yield text
            self.started.set()
            await anyio.sleep_forever()
        finally:
            self.stopped.set()
