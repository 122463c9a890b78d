"""A live site and its client, and operations on the pair."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from gprochat_anyio import Client
from gprochat_anyio._request.chat_client import opener_of
from gprochat_anyio.testing import Reply, Request, Script, ScriptedSite, live_site


def echo(request: Request) -> Script:
    """Reply with the prompt."""
    return request.prompt


class AtOnce:
    """A site that measures the maximum number of concurrent requests."""

    def __init__(self, answer: Callable[[Request], Script]) -> None:
        self.most = 0
        self._answer = answer
        self._running: list[Request] = []

    def __call__(self, request: Request) -> Script:
        self._running = [r for r in self._running if r.outcome == "running"] + [request]
        self.most = max(self.most, len(self._running))
        return self._answer(request)


@asynccontextmanager
async def prompted(*replies: Reply, **settings: Any) -> AsyncIterator[tuple[Client, ScriptedSite]]:
    """Serve a site on 127.0.0.1, which echoes by default. Yield a client and the site.

    :param settings: The settings of the client.
    """
    with anyio.fail_after(20):
        async with live_site(*(replies or (echo,))) as site, site.client(**settings) as client:
            yield client, site


def pool_of(client: Client) -> Any:
    """Return the connection pool of a client."""
    return opener_of(client).pool


async def closed(site: ScriptedSite) -> None:
    """Wait until the site has seen every connection close."""
    with anyio.fail_after(10):
        await site.until(lambda: not site.open_connections)
