"""Sites and proxies that never read a request, for faults before it.

The sites of the testing kit read and parse all data, and in memory they have neither a proxy nor
TLS.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TypeVar

import anyio
import pytest
from anyio.abc import SocketStream
from anyio.lowlevel import checkpoint

from gprochat_anyio.testing import Drop, Hold, Script, ScriptedSite, Step
from gprochat_anyio.testing._live_site import _serve
from gprochat_anyio.testing._site_connection import SiteConnection
from gprochat_anyio.testing._steps import steps_of
from gprochat_anyio.transport import _connecting

from .scripted import Endless
from .servers import Peer, serving

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Take(Step):
    """A step that reads a number of further bytes."""

    count: int


class DeafConnection(SiteConnection):
    """A connection that runs a script once the client's first bytes arrive, and then ends.

    It reads only as many bytes as a connection buffers, and as the script reads.
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
    """A site with the same script for each connection."""

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
    """Serve such a site on 127.0.0.1."""

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
    """Serve such a site over socket pairs, which replace all connections, with TLS or proxies too.

    Data sent at one end is immediately available at the other, so virtual time works.
    """
    site = DeafSite(script)
    async with anyio.create_task_group() as tasks:

        async def connect_socket(*_: object) -> socket.socket:
            await checkpoint()
            client, server = socket.socketpair()
            for end in (client, server):
                end.setblocking(False)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the minimum
            tasks.start_soon(_play, site.connect(), client, server)
            return client

        with monkeypatch.context() as patch:
            patch.setattr(_connecting, "_connect_socket", connect_socket)
            yield site
        tasks.cancel_scope.cancel()


async def _play(site: SiteConnection, client: socket.socket, server: socket.socket) -> None:
    async def take_in() -> None:
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, ConnectionError):
            while data := await _when_ready(anyio.wait_readable, server, lambda: server.recv(4096)):
                await site.send(data)
        tasks.cancel_scope.cancel()

    reset = False
    with server:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take_in)
            try:
                while True:
                    rest = memoryview(await site.receive())
                    while rest:
                        sent = await _when_ready(
                            anyio.wait_writable, server, partial(server.send, rest)
                        )
                        rest = rest[sent:]
            except anyio.BrokenResourceError:
                reset = True
            except (anyio.EndOfStream, ConnectionError):
                pass
            tasks.cancel_scope.cancel()
        site.close()
        # a pair is reset only if unread data remains
        with suppress(BlockingIOError, ConnectionError):
            while server.recv(65536):
                pass
        if reset and client.fileno() >= 0:
            client.send(b"unread")


async def _when_ready(
    wait: Callable[[int], Awaitable[None]], end: socket.socket, call: Callable[[], _Value]
) -> _Value:
    while True:
        try:
            return call()
        except BlockingIOError:
            await wait(end.fileno())
