"""Reading of a response: backpressure, checkpoints, cancellation."""

from __future__ import annotations

import asyncio
import socket

import anyio
import pytest
from anyio.abc import SocketAttribute
from anyio.lowlevel import checkpoint
from support.blocked import all_tasks_blocked
from support.servers import CHUNKED, LAST_CHUNK, Peer, repeating, scripted

from gprochat_anyio.testing import Injection, cancelled, injections
from gprochat_anyio.transport._connection import READ_SIZE
from gprochat_anyio.transport._response_buffer import HIGH

from .exchanges import rest_of, site
from .marks import TLS

pytestmark = pytest.mark.usefixtures("reader_tasks")


class TestBackpressure:
    @TLS
    async def test_a_task_that_stops_reading_stops_the_server(self, *, tls: bool) -> None:
        """The server can fill the kernel's buffers, 64 KiB, and one read."""
        sent = 0

        async def flood(peer: Peer) -> None:
            nonlocal sent
            await peer.request()
            raw = peer.stream.extra(SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            while True:
                await peer.send(b"x" * 16384)
                sent += 16384

        async with site(flood, tls=tls) as to:
            made = await to.send()
            while not made.exchange.paused:
                await checkpoint()
            received = len(await made.read())
            assert received < HIGH + READ_SIZE
            while not made.exchange.paused:
                await checkpoint()
            assert made._size < HIGH + READ_SIZE
            await all_tasks_blocked()
            before = -1
            while before != sent:  # until the server cannot send any more
                before = sent
                await anyio.sleep(0.05)
            raw = socket.socket(fileno=made.exchange._connection.fileno())  # type: ignore[union-attr]
            in_kernel = raw.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            raw.detach()
            assert sent - received < in_kernel + HIGH + READ_SIZE * 5
            stopped_at = sent
            while received < stopped_at + 1_000_000:
                received += len(await made.read())
                assert made._size < HIGH + READ_SIZE
            assert sent > stopped_at
            made.close()

    async def test_a_complete_response_may_wait(self) -> None:
        """A slow reader does not occupy the connection."""
        data = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 100
        async with site(repeating(data)) as to:
            made = await to.send()
            while not made.over:
                await checkpoint()
            assert to.kept == 1
            assert await rest_of(made) == b"x" * 100
            made.close()

    async def test_a_large_response_that_is_read_late_keeps_the_connection_usable(self) -> None:
        body = b"x" * 500_000
        data = b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n" + body
        async with site(repeating(data)) as to:
            for _ in range(2):
                made = await to.send()
                while not made.exchange.paused:
                    await checkpoint()
                assert await rest_of(made) == body
                made.close()
            assert to.server.accepted == 1


class TestReading:
    async def test_two_tasks_cannot_read(self) -> None:
        async with site(scripted(CHUNKED)) as to, anyio.create_task_group() as tasks:
            made = await to.send()
            tasks.start_soon(made.read)
            await all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await made.read()
            tasks.cancel_scope.cancel()
            made.close()

    async def test_it_is_always_a_checkpoint(self) -> None:
        async with site(repeating()) as to:
            made = await to.send()
            while not made.over:
                await checkpoint()
            for _ in range(2):
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await made.read()
                assert scope.cancelled_caught
            assert await made.read() == b"ok"
            with anyio.CancelScope() as scope:
                scope.cancel()
                await made.read()
            assert scope.cancelled_caught
            made.close()

    @pytest.mark.parametrize("sent", [False, True])
    async def test_cancellation_loses_nothing(self, *, sent: bool) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()
            await peer.send(CHUNKED)
            peers.append(peer)
            await peer.until_closed()

        peers: list[Peer] = []
        async with site(handle) as to:
            made = await to.send()
            for moment, native in injections():
                for at in range(1, 4):
                    received: list[bytes] = []

                    async def read(received: list[bytes] = received) -> None:
                        received.append(await made.read())

                    if not sent:
                        with anyio.move_on_after(0.01):
                            await cancelled(Injection(at, moment, native), read)
                    await peers[0].send(b"4\r\ndata\r\n")
                    with anyio.move_on_after(0.01):
                        await cancelled(Injection(at, moment, native), read)
                    if not received:
                        received.append(await made.read())
                    assert received == [b"data"]
            made.close()

    async def test_cancelled_as_data_arrives(self) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()
            await peer.send(CHUNKED)
            peers.append(peer)
            await peer.until_closed()

        peers: list[Peer] = []
        async with site(handle) as to:
            made = await to.send()
            for ticks in range(8):
                received = b""
                with anyio.CancelScope() as scope:
                    async with anyio.create_task_group() as tasks:

                        async def read() -> None:
                            nonlocal received
                            received += await made.read()

                        tasks.start_soon(read)
                        await all_tasks_blocked()
                        await peers[0].send(b"4\r\ndata\r\n")
                        for _ in range(ticks):
                            await checkpoint()
                        scope.cancel()
                while len(received) < 4:
                    received += await made.read()
                assert received == b"data"
            made.close()

    async def test_a_native_cancellation_in_the_same_turn_as_the_data(
        self, anyio_backend_name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if anyio_backend_name == "trio":
            pytest.skip("requires asyncio")

        async def handle(peer: Peer) -> None:
            await peer.request()
            await peer.send(CHUNKED)
            await go_on.wait()
            await peer.send(b"4\r\ndata\r\n" + LAST_CHUNK)
            await peer.until_closed()

        go_on = anyio.Event()
        async with site(handle) as to:
            made = await to.send()
            task = asyncio.create_task(made.read())
            await all_tasks_blocked()
            on_body = made.on_body

            def take_and_cancel(data: bytes) -> None:
                on_body(data)
                task.cancel()

            monkeypatch.setattr(made, "on_body", take_and_cancel)
            go_on.set()
            await asyncio.wait([task])
            assert task.cancelled()
            assert await rest_of(made) == b"data"
            made.close()
