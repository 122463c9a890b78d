"""Kept connections of `AnyIOTransport`, and requests that it repeats."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator

import anyio
import pytest
from support.http_libraries import httpx
from support.servers import CHUNKED, OK, Peer, Request, closing, open_sockets, repeating

from .http_clients import client_of


class TestReuse:
    async def test_keep_alive(self) -> None:
        async with client_of(repeating()) as (client, server):
            for _ in range(5):
                await client.get("/")
            assert server.accepted == 1

    async def test_connection_close(self) -> None:
        answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
        async with client_of(repeating(answer)) as (client, server):
            for _ in range(3):
                await client.get("/")
                assert open_sockets(server.port) == 0
            assert server.accepted == 3

    async def test_an_unread_response_closes_the_connection(self) -> None:
        async with client_of(repeating(CHUNKED + b"2\r\nok\r\n")) as (client, server):
            for _ in range(3):
                async with client.stream("GET", "/"):
                    pass
            assert server.accepted == 3

    @pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
    @pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
    async def test_idempotent_requests_are_repeated_once(self, method: str, *, reset: bool) -> None:
        """The connection closes in the moment in which the request arrives."""
        seen = 0

        async def handle(peer: Peer) -> None:
            nonlocal seen
            await peer.request()
            seen += 1
            await peer.send(b"HTTP/1.1 204 N\r\n\r\n")
            await peer.received.receive()
            if reset:
                peer.reset()

        async with client_of(handle) as (client, server):
            for _ in range(3):
                assert (await client.request(method, "/")).status_code == 204
            assert seen == server.accepted == 3

    async def test_it_is_repeated_on_a_fresh_connection(self) -> None:
        """Another idle connection may have been closed as well."""

        async def handle(peer: Peer) -> None:
            await peer.request()
            await server.until(lambda: server.accepted > 1)
            await peer.send(OK)
            await peer.request()

        async with client_of(handle) as (client, server):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.get, "/")
                tasks.start_soon(client.get, "/")
            assert (await client.get("/")).text == "ok"
            assert server.accepted == 3

    @pytest.mark.parametrize("method", ["POST", "PATCH"])
    @pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
    async def test_other_requests_are_not_repeated(self, method: str, *, reset: bool) -> None:
        async def handle(peer: Peer) -> None:
            requests.append(await peer.request())
            await peer.send(OK)
            requests.append(await peer.request())
            if reset:
                peer.reset()

        requests: list[Request] = []
        async with client_of(handle) as (client, server):
            await client.request(method, "/", content=b"1")
            with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)) as caught:
                await client.request(method, "/", content=b"2")
            assert "before it responded" in str(caught.value)
            assert server.accepted == 1
        assert [request.body for request in requests] == [b"1", b"2"]

    async def test_a_body_that_cannot_be_repeated_is_not(self) -> None:
        async def parts() -> AsyncGenerator[bytes]:
            yield b"x"

        async def handle(peer: Peer) -> None:
            await peer.request()
            await peer.send(OK)
            await peer.request()

        async with client_of(handle) as (client, server):
            await client.get("/")
            with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
                await client.put("/", content=parts())
            assert server.accepted == 1

    async def test_a_request_on_a_new_connection_is_not_repeated(self) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()

        async with client_of(handle) as (client, server):
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/")
            assert server.accepted == 1

    async def test_a_request_with_a_partial_response_is_not_repeated(self) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()
            await peer.send(OK)
            await peer.request()
            await peer.send(b"HTTP/1.1 2")

        async with client_of(handle) as (client, server):
            await client.get("/")
            with pytest.raises(httpx.RemoteProtocolError, match="before its response was complete"):
                await client.get("/")
            assert server.accepted == 1

    @pytest.mark.slow
    async def test_a_server_that_closes_at_the_clients_moment(self) -> None:
        """The caller gets no error, and no request gets two responses."""
        chance = random.Random(7)
        answered: list[str] = []

        async def handle(peer: Peer) -> None:
            for _ in range(chance.randrange(1, 4)):
                request = await peer.request()
                await peer.send(OK)
                answered.append(request.place)
            with anyio.move_on_after(chance.random() * 0.002):
                await peer.received.receive()

        async def ask(name: int) -> None:
            for number in range(100):
                assert (await client.get(f"/{name}-{number}")).text == "ok"
                await anyio.sleep(chance.random() * 0.002)

        async with client_of(handle, seconds=60) as (client, server):
            async with anyio.create_task_group() as tasks:
                for name in range(10):
                    tasks.start_soon(ask, name)
            assert server.accepted > 200
        assert sorted(answered) == sorted(f"/{m}-{n}" for m in range(10) for n in range(100))

    async def test_an_http_1_0_server(self) -> None:
        async with client_of(closing(b"HTTP/1.0 200 OK\r\n\r\nok")) as (client, server):
            for _ in range(2):
                got = await client.get("/")
                assert (got.text, got.http_version) == ("ok", "HTTP/1.0")
            assert server.accepted == 2
