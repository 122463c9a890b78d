"""Sites that do as they are told, byte for byte: on loopback, or in memory for virtual time."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream

from gprochat_anyio.testing import Say
from gprochat_anyio.testing._steps import LAST_CHUNK, REPLY_HEAD
from gprochat_anyio.testing._steps import answer as _answer


class End(Enum):
    """How a script ends the connection."""

    FIN = "orderly"
    RST = "reset"


@dataclass
class Endless:
    """Bytes to send again and again, as long as the client takes them; which is not for long."""

    data: bytes
    bound: int = 5_000_000
    taken: int = 0
    """How many bytes of it were sent."""


Step = bytes | int | float | End | Endless | Callable[[], Awaitable[object]]
"""Bytes to send, a number of them to read, seconds (a float) to wait, an end of the connection, or
something to await."""
Script = tuple[Step, ...]


@dataclass
class Request:
    """What a client sent."""

    head: str
    body: Any

    @property
    def headers(self) -> Mapping[str, str]:
        lines = self.head.split("\r\n")[1:]
        return {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}


@dataclass
class Site:
    """A scripted site. Each request gets the next script, the last one again and again."""

    scripts: list[Script]
    url: str = ""
    greeting: Script = ()
    """What becomes of each connection as the client's first bytes come, instead of requests."""
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    closed: anyio.Event = field(default_factory=anyio.Event)
    """Set as a connection ends; replaced by a new one then."""

    async def handle(self, stream: ByteStream) -> None:
        self.connections += 1
        self.open += 1
        try:
            await self._serve(stream)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.IncompleteRead):
            pass
        finally:
            self.open -= 1
            self.closed.set()
            self.closed = anyio.Event()
            with anyio.CancelScope(shield=True):
                await stream.aclose()

    async def _serve(self, stream: ByteStream) -> None:
        received = BufferedByteReceiveStream(stream)
        if self.greeting:
            await received.receive(1)
            await _run(self.greeting, stream, received)
            return
        while True:
            head = (await received.receive_until(b"\r\n\r\n", 65536)).decode("latin-1")
            request = Request(head, None)
            length = int(request.headers.get("content-length", 0))
            body = await received.receive_exactly(length) if length else b"null"
            request.body = json.loads(body)
            number = len(self.requests)
            self.requests.append(request)
            script = self.scripts[min(number, len(self.scripts) - 1)]
            if await _run(script, stream, received):
                return


async def _run(script: Script, stream: ByteStream, received: BufferedByteReceiveStream) -> bool:
    """Whether the script ends the connection."""
    for step in script:
        if isinstance(step, bytes):
            await stream.send(step)
        elif isinstance(step, int):
            await received.receive_exactly(step)
        elif isinstance(step, float):
            await anyio.sleep(step)
        elif isinstance(step, Endless):
            while step.taken < step.bound:
                await stream.send(step.data)
                step.taken += len(step.data)
            raise AssertionError("the client takes whatever is sent")
        elif isinstance(step, End):
            if step is End.RST:
                _reset(stream)
            return True
        else:
            await step()
    return False


def _reset(stream: ByteStream) -> None:
    """Make the connection end by a reset."""
    if isinstance(stream, MemoryStream):
        stream.reset()
    else:
        raw = stream.extra(SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@asynccontextmanager
async def loopback_site(*scripts: Script) -> AsyncIterator[Site]:
    """A site on 127.0.0.1."""
    site = Site(list(scripts))
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        site.url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        tasks.start_soon(listener.serve, site.handle)
        yield site
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def memory_site(
    monkeypatch: pytest.MonkeyPatch,
    *scripts: Script,
    connect_after: float = 0.0,
    capacity: int = 1_000_000,
) -> AsyncIterator[Site]:
    """A site in memory: `anyio.connect_tcp` leads to it.

    :param connect_after: seconds that a connection takes to make
    :param capacity: how many pieces of data a connection holds
    """
    site = Site(list(scripts), url="http://site.test")
    async with anyio.create_task_group() as tasks:

        async def connect_tcp(host: str, port: int) -> ByteStream:
            await anyio.sleep(connect_after)
            ours, theirs = memory_pipe(capacity)
            tasks.start_soon(site.handle, theirs)
            return ours

        with monkeypatch.context() as patch:
            patch.setattr(anyio, "connect_tcp", connect_tcp)
            yield site
        tasks.cancel_scope.cancel()


def memory_pipe(capacity: int = 1_000_000) -> tuple[MemoryStream, MemoryStream]:
    """Two ends of a connection that never fills up, or only with so many pieces of data."""
    one, other = (anyio.create_memory_object_stream[bytes](capacity) for _ in range(2))
    ends = MemoryStream(one[0], other[1]), MemoryStream(other[0], one[1])
    ends[0].peer, ends[1].peer = ends[1], ends[0]
    return ends


class MemoryStream(ByteStream):
    """One end of a connection. As on Linux, what was sent before a reset still arrives."""

    peer: MemoryStream

    def __init__(self, send: Any, receive: Any) -> None:
        self._send, self._receive = send, receive
        self._rest = b""
        self._was_reset = False

    def reset(self) -> None:
        self.peer._was_reset = True

    async def send(self, item: bytes) -> None:
        await self._send.send(item)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        try:
            data = self._rest or await self._receive.receive()
        except anyio.EndOfStream:
            if self._was_reset:
                raise anyio.BrokenResourceError from None
            raise
        self._rest = data[max_bytes:]
        return bytes(data[:max_bytes])

    async def send_eof(self) -> None:
        self._send.close()

    async def aclose(self) -> None:
        self._send.close()
        self._receive.close()
        await anyio.lowlevel.checkpoint()


HEAD = REPLY_HEAD


def chunk(text: str | bytes) -> bytes:
    """One HTTP chunk."""
    return Say(text).data


def reply(*texts: str | bytes) -> bytes:
    """A whole answer of the site, an HTTP chunk for each text."""
    return REPLY_HEAD + b"".join(Say(text).data for text in texts) + LAST_CHUNK


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    """An answer of a given length; underscores in a header's name stand for hyphens."""
    return _answer(status, body, {k.replace("_", "-"): v for k, v in headers.items()})


def error(status: int, message: str, **headers: str) -> bytes:
    """An error answer of the site."""
    return answer(status, json.dumps({"error": {"message": message}}).encode(), **headers)
