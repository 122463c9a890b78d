"""Streamed responses over `AnyIOTransport`."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from support.blocked import all_tasks_blocked
from support.http_libraries import EACH_LIBRARY
from support.servers import CHUNKED, LAST_CHUNK, Peer, open_sockets, repeating, scripted

from .http_clients import client_of
from .marks import TLS


class TestStreaming:
    @EACH_LIBRARY
    async def test_raw_pieces_come_as_they_are_sent(self, library: Any) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()
            await peer.send(CHUNKED)
            for part in (b"one", b"two", b"three"):
                await peer.send(b"%x\r\n%b\r\n" % (len(part), part))
                await taken.wait()
            await peer.send(LAST_CHUNK)
            await peer.until_closed()

        taken = anyio.Event()
        async with client_of(handle, library=library) as (client, _):
            async with client.stream("GET", "/") as response:
                pieces = response.aiter_raw()
                assert await anext(pieces) == b"one"
                taken.set()
                assert b"".join([piece async for piece in pieces]) == b"twothree"

    # httpx abandons its own generators
    @pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning")
    @TLS
    async def test_leaving_early_closes_the_connection_immediately(self, *, tls: bool) -> None:
        async with client_of(scripted(CHUNKED + b"2\r\nok\r\n"), tls=tls) as (client, server):
            async with client.stream("GET", "/") as response:
                pieces = response.aiter_raw()
                async for piece in pieces:
                    assert piece == b"ok"
                    break
                await pieces.aclose()
            assert open_sockets(server.port) == 0
            await server.all_ended()

    async def test_a_given_chunk_size(self) -> None:
        async with client_of(repeating(CHUNKED + b"5\r\nhello\r\n" + LAST_CHUNK)) as (client, _):
            async with client.stream("GET", "/") as response:
                assert [p async for p in response.aiter_bytes(2)] == [b"he", b"ll", b"o"]

    async def test_framing_alone_is_not_a_piece(self) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()
            await peer.send(CHUNKED + b"2\r\nok")
            await go_on.wait()
            await peer.send(b"\r\n")
            await all_tasks_blocked()
            await peer.send(b"1\r\n!\r\n" + LAST_CHUNK)
            await peer.until_closed()

        go_on = anyio.Event()
        async with client_of(handle) as (client, _):
            async with client.stream("GET", "/") as response:
                pieces = []
                async for piece in response.aiter_raw():
                    pieces.append(piece)
                    go_on.set()
        assert pieces == [b"ok", b"!"]

    @EACH_LIBRARY
    async def test_the_stream_is_of_the_same_library(self, library: Any) -> None:
        async with client_of(repeating(), library=library) as (client, _):
            async with client.stream("GET", "/") as response:
                assert isinstance(response.stream, library.AsyncByteStream)
                assert await response.aread() == b"ok"
