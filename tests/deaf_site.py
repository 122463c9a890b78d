"""Sites, or what is on the way to them, that never come to a request: for what goes wrong before
there is one. The testing kit's sites understand what they are sent, and take in all of it; and in
memory there is neither a proxy nor TLS on the way to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import chain

import anyio
import pytest
from anyio.abc import ByteStream, SocketStream
from anyio.lowlevel import checkpoint
from scripted import Endless
from transport.servers import Peer, serving

from gprochat_anyio.testing import Drop, Hold, Script, ScriptedSite, Step
from gprochat_anyio.testing._live_site import _serve
from gprochat_anyio.testing._site_connection import SiteConnection
from gprochat_anyio.testing._steps import steps_of


@dataclass(frozen=True, slots=True)
class Take(Step):
    """Take in so many bytes more of what the client sends."""

    count: int


class DeafConnection(SiteConnection):
    """Plays a script as the client's first bytes come, whatever they are, and ends.

    It takes in no more of them than a connection holds, and what the script takes.
    """

    def __init__(self, site: ScriptedSite, script: Iterator[Step | Hold]) -> None:
        super().__init__(site)
        self._script: Iterator[Step | Hold] | None = script
        self._room = 65536
        self._taken = anyio.Event()

    async def send(self, item: bytes) -> None:
        await checkpoint()
        self._check_open()
        if self._end is not None:
            raise anyio.BrokenResourceError
        if self._script is not None:
            self._waiting.append((None, self._script))
            self._asked.set()
            self._script = None
        self._room -= len(item)
        while self._room < 0:
            await self._taken.wait()

    async def _play(self, step: Step | Hold) -> bytes:
        if not isinstance(step, Take):
            return await super()._play(step)
        self._room += step.count
        self._taken.set()
        self._taken = anyio.Event()
        return b""


class DeafSite(ScriptedSite):
    """Has the same script for each connection."""

    def __init__(self, script: Script | Endless, url: str = "http://site.test") -> None:
        super().__init__(())
        self.url = url
        self._script = script

    def connect(self) -> SiteConnection:
        self.connections += 1
        script = self._script
        steps = script() if isinstance(script, Endless) else steps_of(script)
        return DeafConnection(self, chain(steps, (Drop(),)))


@asynccontextmanager
async def deaf_site(script: Script | Endless) -> AsyncIterator[DeafSite]:
    """Such a site on 127.0.0.1."""

    async def handle(peer: Peer) -> None:
        assert isinstance(peer.stream, SocketStream)
        await _serve(site, peer.stream)

    async with serving(handle) as server:
        site = DeafSite(script, server.url)
        yield site


@asynccontextmanager
async def deaf_site_in_memory(
    monkeypatch: pytest.MonkeyPatch, script: Script | Endless
) -> AsyncIterator[DeafSite]:
    """Such a site in memory: `anyio.connect_tcp` leads to it, so that proxies and TLS do."""
    site = DeafSite(script)

    async def connect_tcp(host: str, port: int) -> ByteStream:
        await checkpoint()
        return site.connect()

    with monkeypatch.context() as patch:
        patch.setattr(anyio, "connect_tcp", connect_tcp)
        yield site
