"""A served site, and a client that sees every byte: heads, chunk boundaries, broken ends."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream, TaskStatus
from anyio.streams.buffered import BufferedByteReceiveStream
from starlette.types import ASGIApp

from gprochat_anyio._accepting import listen
from gprochat_anyio._wire.gprochat import GENERATE_PATH, REQUEST_CONTENT_TYPE, sign
from gprochat_anyio.site import _serving, offline_model, serve
from gprochat_anyio.site._server import Server

TIME = 1763841600000


def signed(
    text: str = "hello", *, secret_key: str = "", pass_: object = None, **fields: Any
) -> bytes:
    """Return the body of a request that a site accepts, with `fields` replaced."""
    body = {
        "messages": [{"role": "user", "parts": [{"text": text}]}],
        "time": TIME,
        "pass": pass_,
        "sign": sign(TIME, text, secret_key),
    }
    return json.dumps({**body, **fields}).encode()


@dataclass
class Seen:
    """A response as it was on the wire."""

    head: str
    status: int
    headers: dict[str, str]
    chunks: list[bytes]
    complete: bool = True
    """False if the connection was closed before the last chunk."""

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)


class Wire:
    """One connection to a site."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self._buffered = BufferedByteReceiveStream(stream)

    async def send(self, body: bytes, *, path: str = GENERATE_PATH, method: str = "POST") -> None:
        head = (
            f"{method} {path} HTTP/1.1\r\n"
            "Host: 127.0.0.1\r\n"
            f"Content-Type: {REQUEST_CONTENT_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        await self.stream.send(head.encode() + body)

    async def read_head(self) -> Seen:
        head = (await self._buffered.receive_until(b"\r\n\r\n", 65536)).decode()
        first, *lines = head.split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        return Seen(head, int(first.split()[1]), headers, [])

    async def read_chunk(self) -> bytes:
        """Return one HTTP chunk, which is empty at the end."""
        size = int(await self._buffered.receive_until(b"\r\n", 100), 16)
        data = await self._buffered.receive_exactly(size)
        assert await self._buffered.receive_exactly(2) == b"\r\n"
        return data

    async def read(self) -> Seen:
        seen = await self.read_head()
        if "content-length" in seen.headers:
            seen.chunks.append(
                await self._buffered.receive_exactly(int(seen.headers["content-length"]))
            )
            return seen
        try:
            while chunk := await self.read_chunk():
                seen.chunks.append(chunk)
        except anyio.IncompleteRead:
            seen.complete = False
        return seen

    async def read_to_close(self) -> bytes:
        """Return everything up to the end of the connection, including a reset."""
        received = bytearray(self._buffered.buffer)
        try:
            while True:
                received += await self.stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return bytes(received)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Wire]:
    with anyio.fail_after(30):
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            yield Wire(stream)


@asynccontextmanager
async def serving(app_or_model: Any = None, **options: Any) -> AsyncIterator[int]:
    """Serve a site. Yield its port."""
    served = partial(offline_model, delay=0) if app_or_model is None else app_or_model
    async with anyio.create_task_group() as tg:
        url: str = await tg.start(partial(serve, served, **options))
        yield int(url.rpartition(":")[2])
        tg.cancel_scope.cancel()


@asynccontextmanager
async def hosting(
    app: ASGIApp,
    *,
    ssl_context: ssl.SSLContext | None = None,
    until: anyio.Event | None = None,
    grace: float = 5,
    **limits: float,
) -> AsyncIterator[int]:
    """Serve any application with the site's server. Yield its port."""
    port = 0

    async def run(*, task_status: TaskStatus[None]) -> None:
        nonlocal port
        with listen(
            socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, ("127.0.0.1", 0)
        ) as listener:
            port = listener.getsockname()[1]
            changed = replace(_serving.LIMITS, **limits)  # type: ignore[arg-type]
            server = Server(app, listener, changed, ssl_context)
            await server.run(task_status.started, until, grace)

    async with anyio.create_task_group() as tg:
        await tg.start(run)
        yield port
        if until is None:
            tg.cancel_scope.cancel()


def limit(monkeypatch: pytest.MonkeyPatch, **limits: float) -> None:
    """Change the limits of sites that are served from now on."""
    monkeypatch.setattr(_serving, "LIMITS", replace(_serving.LIMITS, **limits))  # type: ignore[arg-type]


async def ask(port: int, body: bytes, **request: Any) -> Seen:
    async with connected(port) as wire:
        await wire.send(body, **request)
        return await wire.read()
