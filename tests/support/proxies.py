"""Small proxies on loopback: HTTP with CONNECT and forwarding, and SOCKS5."""

from __future__ import annotations

import ipaddress
from base64 import b64decode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ssl import SSLContext

import anyio
from anyio.abc import ByteStream

from .servers import ENDS, Peer, Server, serving

Place = tuple[str, int]
Credentials = tuple[str, str]


@dataclass
class Proxy:
    """A proxy that records its requests.

    :param names: The names that it resolves. Addresses are used as they are.
    """

    names: Mapping[str, str] = field(default_factory=lambda: {"site.test": "127.0.0.1"})
    credentials: Credentials | None = None
    asked: list[str] = field(default_factory=list)
    server: Server | None = None

    @property
    def port(self) -> int:
        assert self.server is not None
        return self.server.port

    async def http(self, peer: Peer) -> None:
        """Serve a connection that speaks HTTP to the proxy."""
        while True:
            request = await peer.head()
            self.asked.append(f"{request.method} {request.place}")
            if self.credentials is not None:
                _, _, given = request.headers.get("proxy-authorization", "").partition(" ")
                if b64decode(given).decode() != ":".join(self.credentials):
                    await peer.send(
                        b"HTTP/1.1 407 Proxy Authentication Required\r\n"
                        b"Proxy-Authenticate: Basic\r\nContent-Length: 4\r\n\r\nno!\n"
                    )
                    return
            if request.method == "CONNECT":
                host, _, port = request.place.rpartition(":")
                async with await self._connect((host.strip("[]"), int(port))) as origin:
                    await peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    await _relay(peer, origin)
                return
            scheme, _, rest = request.place.partition("://")
            assert scheme == "http"
            authority, slash, path = rest.partition("/")
            host, _, port = authority.partition(":")
            length = int(request.headers.get("content-length", 0))
            body = await peer.received.receive_exactly(length) if length else b""
            origin = await self._connect((host, int(port or 80)))
            async with origin:
                lines = [f"{request.method} {slash}{path} HTTP/1.1"]
                lines += [
                    f"{n}: {v}" for n, v in request.fields if not n.startswith("Proxy-") and n
                ]
                await origin.send("\r\n".join([*lines, "", ""]).encode() + body)
                answer = b""
                while not answer.endswith((b"ok", b"0\r\n\r\n")):
                    answer += await origin.receive()
                await peer.send(answer)

    async def socks5(self, peer: Peer) -> None:
        """Serve a connection that speaks SOCKS5 to the proxy."""
        read = peer.received.receive_exactly
        version, count = await read(2)
        methods = await read(count)
        assert version == 5
        if self.credentials is None:
            await peer.send(b"\x05\x00")
        elif 2 not in methods:
            await peer.send(b"\x05\xff")
            return
        else:
            await peer.send(b"\x05\x02")
            _, length = await read(2)
            username = await read(length)
            (length,) = await read(1)
            password = await read(length) if length else b""
            right = (username.decode(), password.decode()) == self.credentials
            await peer.send(b"\x01\x00" if right else b"\x01\x01")
            if not right:
                return
        *_, kind = await read(4)
        if kind == 1:
            host = str(ipaddress.IPv4Address(await read(4)))
        elif kind == 4:
            host = str(ipaddress.IPv6Address(await read(16)))
        else:
            (length,) = await read(1)
            host = (await read(length)).decode()
        port = int.from_bytes(await read(2), "big")
        self.asked.append(f"{kind} {host} {port}")
        try:
            origin = await self._connect((host, port))
        except (OSError, KeyError):
            await peer.send(b"\x05\x05\x00\x01" + bytes(6))
            return
        async with origin:
            bound = {1: b"\x01" + bytes(4), 4: b"\x04" + bytes(16), 3: b"\x03\x04here"}[kind]
            await peer.send(b"\x05\x00\x00" + bound + bytes(2))
            await _relay(peer, origin)

    async def _connect(self, place: Place) -> ByteStream:
        host, port = place
        try:
            ipaddress.ip_address(host)
        except ValueError:
            host = self.names[host]
        return await anyio.connect_tcp(host, port)


async def _relay(peer: Peer, origin: ByteStream) -> None:
    async with anyio.create_task_group() as tasks:

        async def pass_on(source: ByteStream, to: ByteStream) -> None:
            with suppress(*ENDS):
                async for data in source:
                    await to.send(data)
            tasks.cancel_scope.cancel()

        tasks.start_soon(pass_on, origin, peer.stream)
        await pass_on(peer.stream, origin)


@asynccontextmanager
async def proxying(
    kind: str = "http",
    *,
    credentials: Credentials | None = None,
    tls: SSLContext | None = None,
    host: str = "127.0.0.1",
) -> AsyncIterator[Proxy]:
    """Serve a proxy on a port of its own."""
    proxy = Proxy(credentials=credentials)
    handler = proxy.http if kind == "http" else proxy.socks5
    async with serving(handler, tls=tls, host=host) as server:
        proxy.server = server
        yield proxy
