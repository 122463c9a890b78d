"""Timeouts of httpx and httpx2 over `AnyIOTransport`."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute
from support.blocked import all_tasks_blocked
from support.http_libraries import EACH_LIBRARY, httpx
from support.servers import (
    CHUNKED,
    LAST_CHUNK,
    OK,
    Peer,
    black_hole,
    open_sockets,
    repeating,
    scripted,
    serving,
)

from gprochat_anyio.transport import AnyIOTransport, _connecting

from .http_clients import client_of


class TestTimeouts:
    """Each of httpx's four limits has its own exception."""

    @EACH_LIBRARY
    async def test_connect(self, library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        async def connect_socket(*_: object) -> Any:
            await anyio.sleep_forever()

        monkeypatch.setattr(_connecting, "_connect_socket", connect_socket)
        timeout = library.Timeout(5, connect=0.02)
        async with library.AsyncClient(transport=AnyIOTransport(), timeout=timeout) as client:
            with pytest.raises(library.ConnectTimeout, match=r"^connect took more than 0\.02 s$"):
                await client.get("http://site.test/")

    async def test_connect_includes_the_handshake(self) -> None:
        with anyio.fail_after(10):
            async with serving(black_hole) as server:
                transport = AnyIOTransport()
                timeout = httpx.Timeout(5, connect=0.05)
                async with httpx.AsyncClient(transport=transport, timeout=timeout) as client:
                    with pytest.raises(httpx.ConnectTimeout):
                        await client.get(f"https://127.0.0.1:{server.port}/")
                    assert open_sockets(server.port) == 0
                await server.all_ended()

    @EACH_LIBRARY
    async def test_read_of_the_head(self, library: Any) -> None:
        timeout = library.Timeout(5, read=0.02)
        async with client_of(black_hole, library=library, limits=timeout) as (client, server):
            with pytest.raises(
                library.ReadTimeout, match=r"^read took more than 0\.02 s$"
            ) as caught:
                await client.post("/", content=b"x")
            assert caught.value.request.method == "POST"
            assert caught.value.__cause__ is None
            assert open_sockets(server.port) == 0

    @EACH_LIBRARY
    async def test_read_of_the_body(self, library: Any) -> None:
        timeout = library.Timeout(5, read=0.02)
        handler = scripted(CHUNKED + b"2\r\nok\r\n")
        async with client_of(handler, library=library, limits=timeout) as (client, server):
            with pytest.raises(library.ReadTimeout):
                await client.get("/")
            assert open_sockets(server.port) == 0

    @pytest.mark.slow
    async def test_read_is_for_each_read(self) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()
            for byte in CHUNKED + b"2\r\nok\r\n" + LAST_CHUNK:
                await peer.send(bytes([byte]))
                await anyio.sleep(0.03)
            await peer.until_closed()

        timeout = httpx.Timeout(5, read=1)
        async with client_of(handle, limits=timeout) as (client, _):
            assert (await client.get("/")).text == "ok"

    @EACH_LIBRARY
    @pytest.mark.parametrize("body", ["bytes", "iterator", "small"])
    async def test_write(self, library: Any, body: str) -> None:
        async def endless() -> AsyncGenerator[bytes]:
            while True:
                yield b"x" * 65536

        async def handle(peer: Peer) -> None:
            raw = peer.stream.extra(SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await go_on.wait()

        go_on = anyio.Event()
        timeout = library.Timeout(5, write=0.05)
        parts = endless()
        content: Any = b"x" * 50_000_000 if body == "bytes" else parts
        async with (
            aclosing(parts),
            client_of(handle, library=library, limits=timeout) as (client, server),
        ):
            if body == "small":  # fits into the kernel's buffers: the client waits for a response
                with pytest.raises(library.ReadTimeout):
                    await client.post("/", content=b"x" * 100, timeout=library.Timeout(0.05))
            else:
                with pytest.raises(library.WriteTimeout, match=r"^write took more than 0\.05 s$"):
                    await client.post("/", content=content)
            assert open_sockets(server.port) == 0
            go_on.set()

    @EACH_LIBRARY
    async def test_pool(self, library: Any) -> None:
        timeout = library.Timeout(5, pool=0.02)
        handler = scripted(CHUNKED)
        async with client_of(handler, library=library, limits=timeout, max_connections=1) as (
            client,
            _,
        ):
            async with client.stream("GET", "/"):
                with pytest.raises(library.PoolTimeout, match=r"^pool took more than 0\.02 s$"):
                    await client.get("/")

    async def test_a_repeated_request_that_waits_again_is_limited_by_pool(self) -> None:
        """An idle connection was closed. Another request gets the only slot first."""

        async def handle(peer: Peer) -> None:
            if server.accepted == 1:
                await peer.request()
                await peer.send(OK)
                await peer.request()
                second.set()
                await go_on.wait()
            else:
                await black_hole(peer)

        async def repeated() -> None:
            with pytest.raises(httpx.PoolTimeout):
                await client.get("/")
            tasks.cancel_scope.cancel()

        second, go_on = anyio.Event(), anyio.Event()
        limits = httpx.Timeout(5, pool=0.05)
        async with client_of(handle, limits=limits, max_connections=1) as (client, server):
            await client.get("/")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(repeated)
                await second.wait()
                tasks.start_soon(partial(client.get, "/", timeout=None))
                await all_tasks_blocked()
                go_on.set()

    async def test_none_is_no_limit(self) -> None:
        async with client_of(repeating(), limits=None) as (client, _):
            assert (await client.get("/")).text == "ok"

    async def test_no_timeouts_at_all(self) -> None:
        with anyio.fail_after(5):
            async with serving(repeating()) as server:
                transport = AnyIOTransport()
                request = httpx.Request("GET", server.url)
                response = await transport.handle_async_request(request)
                assert await response.aread() == b"ok"
                await transport.aclose()
