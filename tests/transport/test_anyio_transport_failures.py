"""Failures of servers, networks and proxies, as exceptions of httpx and httpx2."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import anyio
import pytest
from support.http_libraries import EACH_LIBRARY, httpx
from support.servers import (
    CHUNKED,
    OK,
    Handler,
    Peer,
    black_hole,
    closed_port,
    closing,
    open_sockets,
    server_context,
    serving,
)

from gprochat_anyio.transport import AnyIOTransport

from .http_clients import client_of


class TestFailures:
    """Each failure becomes an exception of httpx, with a message and without a chain."""

    @EACH_LIBRARY
    @pytest.mark.parametrize(
        ("handler", "name", "message"),
        [
            (closing(b""), "RemoteProtocolError", "closed by the peer before it responded"),
            (closing(b"HTTP/1.1 2"), "RemoteProtocolError", "before its response was complete"),
            (closing(OK[:-1]), "RemoteProtocolError", "before its response was complete"),
            (closing(CHUNKED), "RemoteProtocolError", "before its response was complete"),
            (closing(b"HTTP/2.0 200 OK\r\n\r\n"), "RemoteProtocolError", "HTTP/2.0"),
            (closing(b"hello"), "RemoteProtocolError", "is not valid HTTP/1.1"),
            (closing(CHUNKED + b"x"), "RemoteProtocolError", "is not valid HTTP/1.1"),
        ],
    )
    async def test_of_the_server(
        self, library: Any, handler: Handler, name: str, message: str
    ) -> None:
        async with client_of(handler, library=library) as (client, server):
            with pytest.raises(getattr(library, name), match=message) as caught:
                await client.get("/")
            assert caught.value.request.url == server.url + "/"
            assert caught.value.__cause__ is caught.value.__context__ is None
            assert open_sockets(server.port) == 0

    @EACH_LIBRARY
    @pytest.mark.parametrize("start", [b"", CHUNKED + b"2\r\nok\r\n"], ids=["head", "body"])
    async def test_of_the_network(self, library: Any, start: bytes) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()
            if start:
                await peer.send(start)
                await taken.wait()
            peer.reset()

        taken = anyio.Event()
        async with client_of(handle, library=library) as (client, server):
            with pytest.raises(library.ReadError, match="the connection broke before") as caught:
                async with client.stream("GET", "/") as response:
                    async for _ in response.aiter_raw():
                        taken.set()
            assert caught.value.__cause__ is None
            assert open_sockets(server.port) == 0

    @EACH_LIBRARY
    async def test_to_connect(self, library: Any) -> None:
        async with library.AsyncClient(transport=AnyIOTransport()) as client:
            with pytest.raises(library.ConnectError, match="could not connect to 127"):
                await client.get(f"http://127.0.0.1:{closed_port()}/")

    @EACH_LIBRARY
    async def test_of_tls(self, library: Any) -> None:
        async with serving(black_hole, tls=server_context()) as server:
            transport = AnyIOTransport(ssl_context=ssl.create_default_context())
            async with library.AsyncClient(transport=transport) as client:
                with pytest.raises(library.ConnectError, match="certificate is not valid"):
                    await client.get(f"https://127.0.0.1:{server.port}/")

    @EACH_LIBRARY
    async def test_of_the_proxy(self, library: Any) -> None:
        transport = AnyIOTransport(proxy=f"http://127.0.0.1:{closed_port()}")
        async with library.AsyncClient(transport=transport) as client:
            with pytest.raises(library.ProxyError, match="the proxy cannot be reached"):
                await client.get("https://site.test/")

    @EACH_LIBRARY
    @pytest.mark.parametrize("size", [50_000_000, None], ids=["bytes", "iterator"])
    async def test_a_refusal_stops_sending(self, library: Any, size: int | None) -> None:
        """The server reads nothing of an endless body."""

        async def endless() -> AsyncGenerator[bytes]:
            while True:
                yield b"x" * 65536

        async def handle(peer: Peer) -> None:
            await peer.head()
            await peer.send(b"HTTP/1.1 413 Large\r\nContent-Length: 2\r\n\r\nno")
            await left.wait()

        left = anyio.Event()
        parts = endless()
        async with aclosing(parts), client_of(handle, library=library) as (client, server):
            got = await client.post("/", content=parts if size is None else b"x" * size)
            assert (got.status_code, got.text) == (413, "no")
            assert open_sockets(server.port) == 0
            left.set()

    async def test_after_one_the_next_request_succeeds(self) -> None:
        async def handle(peer: Peer) -> None:
            count = server_.accepted
            await peer.request()
            await peer.send(b"nonsense" if count % 2 else OK)

        async with client_of(handle, max_connections=1) as (client, server_):
            for _ in range(5):
                with pytest.raises(httpx.RemoteProtocolError):
                    await client.get("/")
                assert (await client.get("/", headers={"Connection": "close"})).text == "ok"
