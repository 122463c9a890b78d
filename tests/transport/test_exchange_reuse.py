"""Connections that are kept or closed after a response."""

from __future__ import annotations

import anyio
import pytest
from support.servers import CHUNKED, OK, Peer, open_sockets, repeating, scripted

from gprochat_anyio.transport._failures import ConnectionLost

from .exchanges import POST, rest_of, site
from .marks import TLS

pytestmark = pytest.mark.usefixtures("reader_tasks")


class TestReuse:
    @TLS
    async def test_a_complete_response_keeps_the_connection(self, *, tls: bool) -> None:
        async with site(repeating(), tls=tls) as to:
            first = await to.send()
            assert not first.exchange.reused
            assert await rest_of(first) == b"ok"
            assert to.kept == 1
            first.close()
            assert to.kept == 1
            second = await to.send()
            assert second.exchange.reused
            second.close()
            assert to.server.accepted == 1

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            OK + b"X",
            OK + OK,
            b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=0\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nKeep-Alive: max=3, Timeout = 0\r\nContent-Length: 2\r\n\r\nok",
        ],
    )
    async def test_a_response_that_ends_the_connection(self, answer: bytes) -> None:
        async with site(scripted(answer)) as to:
            assert await to.get() == b"ok"
            assert to.kept == 0
            assert open_sockets(to.server.port) == 0

    @pytest.mark.parametrize(
        ("field", "seconds"),
        [
            (b"", 4),
            (b"Keep-Alive: timeout=5\r\n", 4),
            (b"Keep-Alive: max=100, timeout=100\r\n", 80),
            (b"KEEP-ALIVE: TimeOut = 10\r\n", 8),
            (b"Keep-Alive: timeout=soon\r\n", 4),
            (b"Keep-Alive: timeout\r\n", 4),
            (b"Keep-Alive: 100\r\n", 4),
        ],
    )
    async def test_the_sites_keep_alive(self, field: bytes, seconds: float) -> None:
        answer = b"HTTP/1.1 200 OK\r\n" + field + b"Content-Length: 2\r\n\r\nok"
        async with site(repeating(answer)) as to:
            before = anyio.current_time()
            await to.get()
            after = anyio.current_time()
            (connection,) = to.pool._idle[to.target]
            assert before + seconds <= connection.expires <= after + seconds

    @pytest.mark.parametrize("bodiless", [False, True])
    async def test_a_response_without_a_body(self, *, bodiless: bool) -> None:
        status = b"200 OK" if bodiless else b"204 No Content"
        async with site(repeating(b"HTTP/1.1 " + status + b"\r\nContent-Length: 9\r\n\r\n")) as to:
            for _ in range(2):
                made = await to.send(bodiless=bodiless)
                assert await made.read() == b""
                made.close()
            assert to.server.accepted == 1

    @TLS
    async def test_an_unread_response_closes_it_immediately(self, *, tls: bool) -> None:
        async with site(scripted(CHUNKED + b"2\r\nok\r\n"), tls=tls) as to:
            made = await to.send()
            assert await made.read() == b"ok"
            made.close()
            assert open_sockets(to.server.port) == 0
            assert to.pool.statistics().available == 5
            made.close()  # closing again has no effect

    async def test_a_closed_exchange_receives_no_other_data(self) -> None:
        async def handle(peer: Peer) -> None:
            while True:
                request = await peer.request()
                await peer.send(OK if request.method == "GET" else OK[:-1])

        async with site(handle) as to:
            complete = await to.send()
            assert await rest_of(complete) == b"ok"
            complete.close()
            other = await to.send()
            assert other.exchange.reused
            assert await complete.read() == b""
            other.close()

            unread = await to.send(fresh=True)
            unfinished = await to.send(POST % 0)
            for made in (unread, unfinished):
                made.close()
                for _ in range(2):
                    with pytest.raises(ConnectionLost, match="closed before its response was read"):
                        await made.read()
