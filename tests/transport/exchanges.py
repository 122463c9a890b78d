"""Single exchanges over a pool, as `AnyIOTransport` makes them, without httpx."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from support.reactors import running_reactor
from support.servers import Handler, Server, client_context, open_sockets, server_context, serving

from gprochat_anyio.transport._anyio_transport import ConnectionSource, HTTPTransport
from gprochat_anyio.transport._pool import Pool
from gprochat_anyio.transport._response_buffer import ResponseBuffer
from gprochat_anyio.transport._response_parser import ResponseParser
from gprochat_anyio.transport._target import Target

GET = b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: site.test\r\nContent-Length: %d\r\n\r\n"
CHUNKED_POST = b"POST / HTTP/1.1\r\nHost: site.test\r\nTransfer-Encoding: chunked\r\n\r\n"

Body = bytes | AsyncIterator[bytes]


def no_stage(stage: str) -> None:
    pass


class Stages:
    """A recorder of stages in place of httpx's limits. It limits none."""

    def __init__(self, on_stage: Callable[[str], object]) -> None:
        self.start = on_stage

    def renew_read(self) -> None:
        """Do nothing: reads are not limited."""


async def exchange(
    pool: Pool,
    target: Target,
    head: bytes = GET,
    body: Body = b"",
    *,
    on_stage: Callable[[str], object] = no_stage,
    bodiless: bool = False,
    fresh: bool = False,
) -> ResponseBuffer:
    """Send a request, and return its response once the head has arrived."""
    transport = HTTPTransport()
    transport._connections = ConnectionSource(pool, None)
    stages: Any = Stages(on_stage)
    method = "HEAD" if bodiless else "GET"
    return await transport._attempt(method, target, head, body, stages, fresh=fresh)


async def get(pool: Pool, target: Target, head: bytes = GET, body: Body = b"") -> bytes:
    """Complete an exchange, and return the response body."""
    made = await exchange(pool, target, head, body)
    try:
        return await rest_of(made)
    finally:
        made.close()


async def rest_of(made: ResponseBuffer) -> bytes:
    body = b""
    while data := await made.read():
        body += data
    return body


def head_of(made: ResponseBuffer) -> ResponseParser:
    assert made.head is not None
    return made.head


def idle(pool: Pool) -> int:
    return len(pool.statistics().idle)


class Site:
    """A server, and a pool of connections to it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.pool = Pool(max_connections=5, ssl_context=client_context())
        self.target = Target("https" if server.tls else "http", "127.0.0.1", server.port)
        self.stages: list[str] = []

    async def send(self, head: bytes = GET, body: Body = b"", **options: bool) -> ResponseBuffer:
        return await exchange(
            self.pool, self.target, head, body, on_stage=self.stages.append, **options
        )

    async def get(self, head: bytes = GET, body: Body = b"") -> bytes:
        made = await self.send(head, body)
        try:
            return await rest_of(made)
        finally:
            made.close()

    @property
    def kept(self) -> int:
        return idle(self.pool)


@asynccontextmanager
async def site(handler: Handler, *, tls: bool = False) -> AsyncIterator[Site]:
    """Serve a site. All connections to it must be closed at the end of the block."""
    with anyio.fail_after(10):
        async with serving(handler, tls=server_context() if tls else None) as server:
            connected = Site(server)
            yield connected
            connected.pool.close()
            assert connected.pool.statistics().available == 5
            assert running_reactor() is None
            assert open_sockets(server.port) == 0
            await server.all_ended()
