"""Responses that end, end early or are invalid, as a task reads them."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.blocked import all_tasks_blocked
from support.servers import CHUNKED, OK, Peer, closing, open_sockets, scripted

from gprochat_anyio.transport._failures import ConnectionLost, ProtocolViolation, TransportFailure

from .exchanges import site
from .marks import TLS

pytestmark = pytest.mark.usefixtures("reader_tasks")


class TestEnds:
    """Every way in which a response can break off."""

    @TLS
    @pytest.mark.parametrize(
        "start",
        [b"", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-Len", b"HTTP/1.1 100 Continue\r\n\r\n"],
    )
    async def test_before_the_head(self, start: bytes, *, tls: bool) -> None:
        async with site(closing(start), tls=tls) as to:
            with pytest.raises(ConnectionLost) as caught:
                await to.send()
            assert caught.value.answered is bool(start)
            assert "closed by the peer" in str(caught.value) or tls
            assert not caught.value.stale
            assert open_sockets(to.server.port) == 0
            assert to.pool.statistics().available == 5

    @pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
    @pytest.mark.parametrize(
        "start",
        [
            CHUNKED,
            CHUNKED + b"2\r\nok",
            CHUNKED + b"2\r\nok\r\n",
            CHUNKED + b"2\r\nok\r\n0\r\n",
            OK[:-1],
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
        ],
    )
    async def test_within_the_body(self, start: bytes, *, reset: bool) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()
            await peer.send(start)
            await received.wait()
            if reset:
                peer.reset()

        received = anyio.Event()
        async with site(handle) as to:
            made = await to.send()
            body = b""
            expected = start.partition(b"\r\n\r\n")[2].strip(b"2\r\n0")
            while len(body) < len(expected):
                body += await made.read()
            received.set()
            with pytest.raises(ConnectionLost, match="before its response was complete") as caught:
                await made.read()
            assert body == expected
            assert caught.value.answered
            assert caught.value.reset is reset
            made.close()
            assert to.pool.statistics().available == 5

    async def test_a_body_up_to_the_end_of_the_connection(self) -> None:
        async with site(closing(b"HTTP/1.1 200 OK\r\n\r\nup to the end")) as to:
            assert await to.get() == b"up to the end"
            assert to.kept == 0

    async def test_no_such_body_without_a_tls_close_notify(self) -> None:
        """An attacker could truncate it."""
        async with site(closing(b"HTTP/1.1 200 OK\r\n\r\nup to the"), tls=True) as to:
            made = await to.send()
            assert await made.read() == b"up to the"
            with pytest.raises(ConnectionLost):
                await made.read()
            made.close()

    async def test_an_idle_connection_that_closes_when_the_request_arrives(self) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()
            await peer.send(OK)
            await peer.request()

        async with site(handle) as to:
            await to.get()
            with pytest.raises(ConnectionLost) as caught:
                await to.get()
            assert caught.value.stale
            assert caught.value.reused

    @pytest.mark.parametrize("wire", [b"<html>", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000])
    async def test_invalid_responses(self, wire: bytes) -> None:
        async with site(scripted(wire)) as to:
            with pytest.raises(ProtocolViolation):
                await to.send()
            assert open_sockets(to.server.port) == 0
            assert to.pool.statistics().available == 5

    async def test_a_violation_within_the_body_comes_after_valid_data(self) -> None:
        async with site(scripted(CHUNKED + b"2\r\nok\r\n2\r\n!!\r\nnonsense")) as to:
            made = await to.send()
            assert await made.read() == b"ok!!"
            for _ in range(2):
                with pytest.raises(ProtocolViolation):
                    await made.read()
            assert open_sockets(to.server.port) == 0
            made.close()

    async def test_a_task_that_reads_when_another_closes(self) -> None:
        async with site(scripted(CHUNKED)) as to:
            made = await to.send()

            async def close() -> None:
                await all_tasks_blocked()
                made.close()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(close)
                with pytest.raises(ConnectionLost):
                    await made.read()

    @pytest.mark.parametrize("ticks", range(6))
    async def test_a_task_that_reads_when_another_closes_as_data_arrives(self, ticks: int) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()
            await peer.send(CHUNKED)
            await go_on.wait()
            await peer.send(b"2\r\nok\r\n")
            await peer.until_closed()

        go_on = anyio.Event()
        async with site(handle) as to:
            made = await to.send()

            async def close() -> None:
                await all_tasks_blocked()
                go_on.set()
                for _ in range(ticks):
                    await checkpoint()
                made.close()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(close)
                try:
                    assert await made.read() == b"ok"
                except TransportFailure as failure:
                    assert isinstance(failure, ConnectionLost)  # noqa: PT017 - unless the read was in time
