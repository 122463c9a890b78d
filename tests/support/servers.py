"""Scripted peers on loopback, and the number of open sockets."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import trustme
from anyio.abc import ByteStream, Listener, SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSStream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

# ends of a connection, as seen by the server
ENDS = (
    anyio.EndOfStream,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.IncompleteRead,
    OSError,
)


@cache
def authority() -> trustme.CA:
    return trustme.CA()


@cache
def server_context(*names: str) -> ssl.SSLContext:
    """Return the context of a server with a certificate for these names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    names = names or ("site.test", "localhost", "127.0.0.1", "::1")
    authority().issue_cert(*names).configure_cert(context)
    return context


@cache
def client_context() -> ssl.SSLContext:
    """Return a context that trusts only the tests' own authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    return context


@dataclass
class Request:
    """A client's request."""

    method: str
    place: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    head: bytes = b""

    @property
    def headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.fields}


class Peer:
    """The server's end of one connection."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.received = BufferedByteReceiveStream(stream)

    async def head(self) -> Request:
        """Return the next request, without its body."""
        raw = await self.received.receive_until(b"\r\n\r\n", 1 << 20)
        first, *lines = raw.decode("latin-1").split("\r\n")
        method, place, _ = first.split(" ")
        pairs = [line.partition(":") for line in lines]
        return Request(method, place, [(n, v.strip()) for n, _, v in pairs], head=raw)

    async def request(self) -> Request:
        """Return the next request, with its body."""
        request = await self.head()
        if request.headers.get("transfer-encoding") == "chunked":
            while size := int(await self.received.receive_until(b"\r\n", 100), 16):
                request.body += await self.received.receive_exactly(size)
                await self.received.receive_exactly(2)
            await self.received.receive_exactly(2)
        elif length := int(request.headers.get("content-length", 0)):
            request.body = await self.received.receive_exactly(length)
        return request

    async def send(self, data: bytes) -> None:
        await self.stream.send(data)

    async def until_closed(self) -> int:
        """Wait until the client has closed the connection in any way. Return the number of bytes
        before."""
        count = 0
        with suppress(*ENDS):
            while True:
                count += len(await self.received.receive())
        return count

    def reset(self) -> None:
        """Let the connection end with a reset."""
        raw = self.stream.extra(SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


Handler = Callable[[Peer], Awaitable[object]]


@dataclass
class Server:
    """A peer on loopback. `handler` has each connection until it returns or the client leaves."""

    handler: Handler
    port: int
    tls: ssl.SSLContext | None = None
    accepted: int = 0
    ended: int = 0
    requests: list[Request] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    _changed: anyio.Event = field(default_factory=anyio.Event)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def serve(self, stream: ByteStream) -> None:
        self.accepted += 1
        self._change()
        try:
            under_tls = stream
            if self.tls is not None:
                under_tls = await TLSStream.wrap(
                    stream, server_side=True, ssl_context=self.tls, standard_compatible=False
                )
            await self.handler(Peer(under_tls))
        except ENDS as error:
            self.errors.append(error)
        finally:
            with anyio.CancelScope(shield=True):
                await stream.aclose()
            self.ended += 1
            self._change()

    async def all_ended(self) -> None:
        """Wait until the client has closed every connection that was accepted."""
        await self.until(lambda: self.ended == self.accepted)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition on these counts."""
        while not condition():
            await self._changed.wait()

    def _change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


@asynccontextmanager
async def serving(
    handler: Handler,
    *,
    tls: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
    path: Path | None = None,
) -> AsyncIterator[Server]:
    """Serve on a port of its own, or on a Unix socket. Leaving the block cancels the handlers."""
    port = 0
    listener: Listener[Any]
    if path is None:
        listener = await anyio.create_tcp_listener(local_host=host)
        port = listener.extra(SocketAttribute.local_port)
    else:
        listener = await anyio.create_unix_listener(path)
    server = Server(handler, port, tls)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, server.serve)
        yield server
        tasks.cancel_scope.cancel()


def scripted(*answers: bytes) -> Handler:
    """Return a handler that sends responses in order on each connection, then waits for the
    client."""

    async def handle(peer: Peer) -> None:
        for answer in answers:
            await peer.request()
            await peer.send(answer)
        await peer.until_closed()

    return handle


def repeating(answer: bytes = OK, *, seen: list[Request] | None = None) -> Handler:
    """Return a handler that sends the same response to every request.

    :param seen: Gets the requests.
    """
    kept = [] if seen is None else seen

    async def handle(peer: Peer) -> None:
        while True:
            kept.append(await peer.request())
            await peer.send(answer)

    return handle


def closing(answer: bytes, *, seen: list[Request] | None = None) -> Handler:
    """Return a handler that responds to one request of each connection, and closes it."""
    kept = [] if seen is None else seen

    async def handle(peer: Peer) -> None:
        kept.append(await peer.request())
        await peer.send(answer)

    return handle


async def black_hole(peer: Peer) -> None:
    """Read everything, and never send anything."""
    await peer.until_closed()


@cache
def _bound_socket() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


def closed_port() -> int:
    """Return a port that refuses connections. No other process can take it in the meantime."""
    return int(_bound_socket().getsockname()[1])


def open_sockets(*ports: int) -> int:
    """Return the number of sockets of this process that are connected to these ports."""
    count = 0
    for descriptor in Path("/dev/fd").iterdir():
        try:
            sock = socket.socket(fileno=int(descriptor.name))
        except OSError:
            continue
        try:
            count += sock.family != socket.AF_UNIX and sock.getpeername()[1] in ports
        except OSError:
            pass  # it listens, or its peer has left
        finally:
            sock.detach()
    return count
