"""A scripted site that answers by what it is asked, for many prompts at once."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from scripted import Script, Site, loopback_site, memory_site, reply

from gprochat_anyio import Client


class Asked(list[Script]):
    """Scripts by prompt, in the place of a site's list of them, and what was asked.

    :param answer: the script for a prompt
    """

    def __init__(self, answer: Callable[[str], Script]) -> None:
        super().__init__()
        self.answer = answer
        self.site: Site | None = None
        self.prompts: list[str] = []
        self.times: list[float] = []
        """When each was asked, by the event loop's clock."""
        self.running = self.at_once = 0
        """How many requests are answered now, and were at the most."""

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, number: Any) -> Any:
        assert self.site is not None
        prompt = self.site.requests[number].body["messages"][-1]["parts"][0]["text"]
        self.prompts.append(prompt)
        self.times.append(anyio.current_time())
        return (self._begin, *self.answer(prompt), self._end)

    async def _begin(self) -> None:
        self.running += 1
        self.at_once = max(self.at_once, self.running)

    async def _end(self) -> None:
        self.running -= 1


def echo(prompt: str) -> Script:
    """Answers each prompt with itself."""
    return (reply(prompt),)


@asynccontextmanager
async def prompted(
    answer: Callable[[str], Script] = echo, **settings: Any
) -> AsyncIterator[tuple[Client, Asked, Site]]:
    """A site on 127.0.0.1 and a client of it.

    :param settings: of the client
    """
    asked = Asked(answer)
    with anyio.fail_after(20):
        async with loopback_site() as asked.site, Client(asked.site.url, **settings) as client:
            asked.site.scripts = asked
            yield client, asked, asked.site


@asynccontextmanager
async def prompted_in_memory(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], Script] = echo, **settings: Any
) -> AsyncIterator[tuple[Client, Asked, Site]]:
    """The same in memory, for virtual time."""
    asked = Asked(answer)
    async with (
        memory_site(monkeypatch) as asked.site,
        Client(asked.site.url, **settings) as client,
    ):
        asked.site.scripts = asked
        yield client, asked, asked.site


def pool_of(client: Client) -> Any:
    """The connections of a client."""
    sender: Any = client._sender
    return sender.pool


async def closed(site: Site) -> None:
    """Wait until the site has seen every connection's end."""
    while site.open:
        await site.closed.wait()
