"""A site, and a client that sees every byte of it: heads, chunk borders, broken ends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
from anyio.abc import ByteStream
from anyio.streams.buffered import BufferedByteReceiveStream

from gprochat_anyio._wire.gprochat import GENERATE_PATH, REQUEST_CONTENT_TYPE, sign
from gprochat_anyio.site import serve

TIME = 1763841600000


def signed(
    text: str = "hello", *, secret_key: str = "", pass_: object = None, **fields: Any
) -> bytes:
    """The body of a request that a site lets in; `fields` replace what it would hold."""
    body = {
        "messages": [{"role": "user", "parts": [{"text": text}]}],
        "time": TIME,
        "pass": pass_,
        "sign": sign(TIME, text, secret_key),
    }
    return json.dumps({**body, **fields}).encode()


@dataclass
class Seen:
    """An answer as it was on the wire."""

    head: str
    status: int
    headers: dict[str, str]
    chunks: list[bytes]

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
            "Host: site.test\r\n"
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
        """One HTTP chunk, empty at the end."""
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
        while chunk := await self.read_chunk():
            seen.chunks.append(chunk)
        return seen

    async def read_to_close(self) -> bytes:
        """Everything up to the end of the connection, however that comes."""
        received = bytearray(self._buffered.buffer)
        try:
            while True:
                received += await self.stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return bytes(received)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Wire]:
    with anyio.fail_after(5):
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            yield Wire(stream)


@asynccontextmanager
async def serving(app_or_model: Any = None, **options: Any) -> AsyncIterator[int]:
    """Serves a site and gives its port."""
    async with anyio.create_task_group() as tg:
        url: str = await tg.start(partial(serve, app_or_model, **options))
        yield int(url.rpartition(":")[2])
        tg.cancel_scope.cancel()


async def ask(port: int, body: bytes, **request: Any) -> Seen:
    async with connected(port) as wire:
        await wire.send(body, **request)
        return await wire.read()
