"""Connections over sockets: nothing is read ahead, lost, or left open."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import which
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from anyio.streams.tls import TLSStream
from support.blocked import all_tasks_blocked
from support.proxies import proxying
from support.reactors import running_reactor
from support.servers import (
    OK,
    Peer,
    authority,
    client_context,
    open_sockets,
    repeating,
    server_context,
    serving,
)

from gprochat_anyio.testing import Injection, cancelled, injections
from gprochat_anyio.transport._connecting import connect
from gprochat_anyio.transport._failures import TLSBroken
from gprochat_anyio.transport._reactor import READ, WRITE, current_reactor
from gprochat_anyio.transport._socket_connection import SocketConnection
from gprochat_anyio.transport._target import Proxy, Target

from .receivers import Listening

TLS = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])

pytestmark = pytest.mark.usefixtures("reader_tasks")


class Pair:
    """The two ends of a connection, and our end's receiver."""

    def __init__(self, connection: SocketConnection, peer: Peer, listening: Listening) -> None:
        self.connection = connection
        self.peer = peer
        self.listening = listening


@asynccontextmanager
async def pair(
    *, tls: bool = False, context: ssl.SSLContext | None = None, greeting: bytes = b""
) -> AsyncIterator[Pair]:
    """Yield a connection, which is closed at the end of the block.

    :param greeting: Data that the server sends as soon as possible.
    """

    async def handle(peer: Peer) -> None:
        if greeting:
            await peer.send(greeting)
        peers.append(peer)
        accepted.set()
        await anyio.sleep_forever()

    peers: list[Peer] = []
    accepted = anyio.Event()
    with anyio.fail_after(10):
        async with serving(handle, tls=server_context() if tls else None) as server:
            target = Target("https" if tls else "http", "127.0.0.1", server.port)
            opened = await connect(target, ssl_context=context or client_context(), uds=None)
            connection = SocketConnection(opened.socket, opened.layers, target, current_reactor())
            listening = connection.receiver = Listening()
            try:
                await accepted.wait()
                yield Pair(connection, peers[0], listening)
            finally:
                connection.close()
            assert running_reactor() is None
            assert open_sockets(server.port) == 0


def unread(connection: SocketConnection) -> bytes:
    """Return arrived data without reading it."""
    try:
        return connection._socket.recv(100, socket.MSG_PEEK)
    except BlockingIOError:
        return b""


async def until_sending(connection: SocketConnection) -> None:
    """Wait until it waits for room, and no longer: a server in the same event loop reads
    everything."""
    while not connection.is_sending:
        await checkpoint()


def always(data: bytes) -> Any:
    """Return a replacement of a socket's `recv`."""
    return lambda _: data


class TestReading:
    @TLS
    async def test_data_goes_both_ways(self, *, tls: bool) -> None:
        async with pair(tls=tls) as ends:
            await ends.connection.send(b"hello")
            assert await ends.peer.received.receive_exactly(5) == b"hello"
            await ends.peer.send(b"world")
            await ends.listening.until(b"world")
            await ends.peer.stream.aclose()
            await ends.listening.until_over()
            assert (ends.listening.error is None) is not tls

    async def test_a_spurious_event(self) -> None:
        async with pair() as ends:
            ends.connection._on_ready(READ | WRITE)
            assert ends.listening.told == []
            await ends.peer.send(b"data")
            await ends.listening.until(b"data")

    @TLS
    async def test_look_reads_available_data(self, *, tls: bool) -> None:
        async with pair(tls=tls) as ends:
            ends.connection.look()
            assert ends.listening.told == []
            ends.connection.pause()
            await ends.peer.send(b"data")
            while not unread(ends.connection):
                await checkpoint()
            ends.connection.look()
            assert ends.listening.told == []
            ends.connection.resume()
            ends.connection.look()
            assert ends.listening.told == [b"data"]

    async def test_look_is_limited(self) -> None:
        """A flood does not delay the event loop at a deadline."""
        async with pair() as ends:
            ends.connection._recv = always(b"x")
            ends.connection.look()
            assert len(ends.listening.data) == 16


class TestPausing:
    @TLS
    async def test_nothing_is_read(self, *, tls: bool) -> None:
        async with pair(tls=tls) as ends:
            ends.connection.pause()
            assert ends.connection.paused
            reactor = running_reactor()
            assert reactor is not None
            assert reactor._watched == {}
            await ends.peer.send(b"data")
            while not unread(ends.connection):
                await checkpoint()
            await all_tasks_blocked()
            assert ends.listening.told == []
            ends.connection.resume()
            await ends.listening.until(b"data")

    @pytest.mark.parametrize("end", ["FIN", "RST"])
    async def test_an_end_is_reported_after_the_data(self, end: str) -> None:
        """Before that, it does not occupy the reactor: the socket is in no selector."""
        async with pair() as ends:
            await ends.peer.send(b"data")
            await ends.listening.until(b"data")
            ends.connection.pause()
            if end == "RST":
                ends.peer.reset()
            await ends.peer.stream.aclose()
            for _ in range(10):
                await checkpoint()
            await all_tasks_blocked()
            assert ends.listening.told == [b"data"]
            ends.connection.resume()
            await ends.listening.until_over()
            assert isinstance(ends.listening.error, ConnectionResetError) is (end == "RST")

    async def test_an_event_from_before_the_pause(self) -> None:
        """The reactor may have fetched the event already."""
        async with pair() as ends:
            ends.connection.pause()
            await ends.peer.send(b"data")
            while not unread(ends.connection):
                await checkpoint()
            ends.connection._on_ready(READ)
            assert ends.listening.told == []

    async def test_while_sending(self) -> None:
        async with pair() as ends, anyio.create_task_group() as tasks:
            data = bytes(20_000_000)
            tasks.start_soon(ends.connection.send, data)
            await until_sending(ends.connection)
            ends.connection.pause()
            await ends.peer.send(b"data")
            assert await ends.peer.received.receive_exactly(len(data)) == data
            assert ends.listening.told == []
            ends.connection.resume()
            await ends.listening.until(b"data")

    async def test_a_closed_connection_stays_closed(self) -> None:
        async with pair() as ends:
            ends.connection.close()
            ends.connection.resume()
            ends.connection.look()
            assert ends.connection.paused


class TestSending:
    @TLS
    async def test_a_large_send_waits_for_the_reader(self, *, tls: bool) -> None:
        async with pair(tls=tls) as ends, anyio.create_task_group() as tasks:
            data = bytes(range(256)) * 80_000
            tasks.start_soon(ends.connection.send, data)
            await until_sending(ends.connection)
            assert await ends.peer.received.receive_exactly(len(data)) == data
        assert not ends.connection.is_sending

    async def test_a_full_buffer_accepts_nothing_at_first(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Full:
            """A socket that accepts nothing, twice."""

            def __init__(self, real: socket.socket) -> None:
                self.real = real
                self.left = 2

            def send(self, data: bytes) -> int:
                if self.left:
                    self.left -= 1
                    raise BlockingIOError
                return self.real.send(data)

            def __getattr__(self, name: str) -> Any:
                return getattr(self.real, name)

        async with pair() as ends:
            full: Any = Full(ends.connection._socket)
            ends.connection._socket = full
            await ends.connection.send(b"data")
            assert full.left == 0
            assert await ends.peer.received.receive_exactly(4) == b"data"

    async def test_a_cancellation_discards_the_rest(self) -> None:
        for moment, native in injections():
            async with pair() as ends:
                injection = Injection(1, moment, native)
                async with anyio.create_task_group() as tasks:
                    if moment == "after":
                        tasks.start_soon(ends.peer.received.receive_exactly, 30_000_000)

                    async def send(ends: Pair = ends) -> None:
                        await ends.connection.send(bytes(30_000_000))

                    await cancelled(injection, send)
                    assert not ends.connection.is_sending
                    tasks.cancel_scope.cancel()

    @pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
    async def test_to_a_peer_that_resets(self, *, large: bool) -> None:
        """It returns. The receiver learns that the connection broke."""
        async with pair() as ends:
            ends.peer.reset()
            await ends.peer.stream.aclose()
            await ends.connection.send(bytes(30_000_000 if large else 10))
            await ends.listening.until_over()
            assert isinstance(ends.listening.error, ConnectionResetError)

    async def test_a_reset_while_it_waits_for_room(self) -> None:
        async with pair() as ends, anyio.create_task_group() as tasks:
            tasks.start_soon(ends.connection.send, bytes(30_000_000))
            await until_sending(ends.connection)
            ends.connection.pause()
            ends.peer.reset()
            await ends.peer.stream.aclose()
            while ends.connection.is_sending:
                await checkpoint()
            assert ends.listening.told == []
            ends.connection.resume()
            await ends.listening.until_over()
            assert isinstance(ends.listening.error, ConnectionResetError)

    async def test_data_before_the_end_is_read(self) -> None:
        async with pair() as ends:
            ends.connection.pause()
            await ends.peer.send(b"no")
            await ends.peer.stream.aclose()  # an orderly end
            while not unread(ends.connection):
                await checkpoint()
            for _ in range(2):  # the first meets a reset, the second has no peer
                await ends.connection.send(b"x")
            ends.connection.resume()
            await ends.listening.until_over()
            assert ends.listening.told == [b"no", "lost"]

    async def test_closed_while_it_waits_for_room(self) -> None:
        async with pair() as ends, anyio.create_task_group() as tasks:
            tasks.start_soon(ends.connection.send, bytes(30_000_000))
            await until_sending(ends.connection)
            ends.connection.close()
            ends.connection.close()
            await ends.connection.send(b"in vain")

    async def test_two_parts_with_little_room(self) -> None:
        """TLS's own records are sent after the data that is being sent."""
        async with pair() as ends, anyio.create_task_group() as tasks:
            data = bytes(20_000_000)
            tasks.start_soon(ends.connection.send, data)
            await until_sending(ends.connection)
            ends.connection._write(b"more")
            assert await ends.peer.received.receive_exactly(len(data)) == data
            assert await ends.peer.received.receive_exactly(4) == b"more"


class TestIdle:
    @pytest.mark.parametrize("end", ["FIN", "RST", "data"])
    async def test_data_is_unsolicited(self, end: str) -> None:
        async with pair() as ends:
            told: list[object] = []
            ends.connection.receiver = None
            ends.connection.on_unsolicited = told.append
            if end == "data":
                await ends.peer.send(b"!")
            else:
                if end == "RST":
                    ends.peer.reset()
                await ends.peer.stream.aclose()
            while not told:
                await checkpoint()
            for _ in range(5):
                await checkpoint()
            assert told == [ends.connection]
            assert not ends.connection.is_quiet()

    @TLS
    async def test_without_a_callback(self, *, tls: bool) -> None:
        async with pair(tls=tls) as ends:
            ends.connection.receiver = None
            assert ends.connection.is_quiet()
            await ends.peer.send(b"!")
            while ends.connection.is_quiet():
                await checkpoint()
            assert ends.listening.told == []

    async def test_a_reset_that_look_finds(self) -> None:
        async with pair() as ends:
            ends.connection.receiver = None
            ends.connection._watch(WRITE)  # so that the reactor does not find it first
            ends.peer.reset()
            await ends.peer.stream.aclose()
            while ends.connection.is_quiet():
                await checkpoint()


class TestDefects:
    @pytest.mark.parametrize("way", ["event", "look"])
    async def test_a_defect_fails_this_receiver_only(
        self, way: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(data: bytes) -> None:
            raise ZeroDivisionError

        async with pair() as ends, pair() as others:
            ends.listening.feed = fail  # type: ignore[method-assign]
            connection = ends.connection
            if way == "look":
                connection._watch(READ | WRITE)
                connection._recv = always(b"data")
                connection.look()
            else:
                await ends.peer.send(b"data")
                await ends.listening.until_over()
            assert ends.listening.told == ["broken"]
            assert connection.closed
            (record,) = caplog.records
            assert record.name == "gprochat_anyio"
            assert record.exc_info is not None
            assert record.exc_info[0] is ZeroDivisionError
            assert record.exc_info[2] is not None
            await others.peer.send(b"data")
            await others.listening.until(b"data")

    @pytest.mark.parametrize("way", ["event", "look"])
    async def test_an_interrupt_fails_the_receiver_and_is_raised(
        self, way: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Otherwise the read data would be lost silently."""
        interrupt = KeyboardInterrupt()

        def fail(data: bytes) -> None:
            raise interrupt

        async with pair() as ends:
            ends.listening.feed = fail  # type: ignore[method-assign]
            ends.connection._recv = always(b"data")
            with pytest.raises(KeyboardInterrupt) as caught:
                if way == "look":
                    ends.connection.look()
                else:
                    ends.connection._on_ready(READ)
            assert caught.value is interrupt
            assert ends.listening.told == ["broken"]
            assert ends.connection.closed
            assert not caplog.records

    async def test_a_defect_of_an_idle_connection(self) -> None:
        def fail(_: object) -> None:
            raise ZeroDivisionError

        async with pair() as ends:
            ends.connection.receiver = None
            ends.connection.on_unsolicited = fail
            await ends.peer.send(b"!")
            while not ends.connection.closed:
                await checkpoint()


class TestLayers:
    async def test_data_after_the_handshake_arrives_with_the_first_request(self) -> None:
        """With TLS 1.2 the server may send first. Afterwards the socket has no event to report."""
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority().configure_trust(old)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        async with pair(tls=True, context=old, greeting=b"early") as ends:
            await ends.connection.send(b"hello")
            await ends.listening.until(b"early")

    @pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
    async def test_data_in_a_layer_is_not_left_there(self, *, first: bool) -> None:
        """`send` on a new connection drains the data that the handshake read ahead."""
        async with pair(tls=True) as ends:
            layer = ends.connection._layers[0]
            ends.connection.pause()
            await ends.peer.send(b"data")
            while not unread(ends.connection):
                await checkpoint()
            layer._incoming.write(ends.connection._socket.recv(65536))
            ends.connection.reused = not first
            await ends.connection.send(b"hello")
            assert ends.listening.told == ([b"data"] if first else [])

    async def test_all_records_of_a_read_are_pushed(self) -> None:
        async with pair(tls=True) as ends:
            ends.connection.pause()
            for _ in range(100):
                await ends.peer.send(b"x" * 100)
            await all_tasks_blocked()
            ends.connection.resume()
            await ends.listening.until(b"x" * 10_000)
            assert len(ends.listening.told) < 10

    async def test_an_orderly_end(self) -> None:
        async with pair(tls=True) as ends:
            stream = ends.peer.stream
            assert isinstance(stream, TLSStream)
            await ends.peer.send(b"data")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stream.unwrap)  # waits for our close_notify
                await ends.listening.until_over()
                assert ends.listening.told == [b"data", "lost"]
                assert ends.listening.error is None
                tasks.cancel_scope.cancel()

    async def test_an_unauthenticated_end(self) -> None:
        async with pair(tls=True) as ends:
            stream = ends.peer.stream
            assert isinstance(stream, TLSStream)
            await ends.peer.send(b"data")
            await stream.transport_stream.aclose()
            await ends.listening.until_over()
            assert ends.listening.data == b"data"
            assert isinstance(ends.listening.error, TLSBroken)

    async def test_garbage_is_reported_after_valid_data(self) -> None:
        async with pair(tls=True) as ends:
            stream = ends.peer.stream
            assert isinstance(stream, TLSStream)
            ends.connection.pause()
            await ends.peer.send(b"data")
            await stream.transport_stream.send(b"\x17\x03\x03\0\x20" + bytes(32))
            await all_tasks_blocked()
            ends.connection.resume()
            await ends.listening.until_over()
            assert ends.listening.data == b"data"
            assert isinstance(ends.listening.error, TLSBroken)

    async def test_a_receiver_that_closes_gets_no_end(self) -> None:
        async with pair(tls=True) as ends:
            told: list[bytes] = []

            def close(data: bytes) -> None:
                told.append(data)
                ends.connection.close()

            ends.listening.feed = close  # type: ignore[method-assign]
            stream = ends.peer.stream
            assert isinstance(stream, TLSStream)
            ends.connection.pause()
            await ends.peer.send(b"data")
            await stream.transport_stream.send(b"\x17\x03\x03\0\x20" + bytes(32))
            await all_tasks_blocked()
            ends.connection.resume()
            while not ends.connection.closed:
                await checkpoint()
            assert told == [b"data"]
            assert ends.listening.told == []

    async def test_two_layers(self) -> None:
        """An https site through an https proxy."""
        with anyio.fail_after(10):
            async with (
                serving(repeating(), tls=server_context()) as server,
                proxying(tls=server_context()) as proxy,
            ):
                way = Proxy.from_url(f"https://127.0.0.1:{proxy.port}")
                target = Target("https", "127.0.0.1", server.port, way)
                opened = await connect(target, ssl_context=client_context(), uds=None)
                connection = SocketConnection(
                    opened.socket, opened.layers, target, current_reactor()
                )
                listening = connection.receiver = Listening()
                for count in (1, 2):
                    await connection.send(b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n")
                    await listening.until(OK * count)
                connection.close()
                await server.all_ended()

    async def test_a_layers_own_data_is_sent(self) -> None:
        """It is sent through the layers below."""

        class Layer:
            """A layer that responds to each read."""

            ended, failure = False, None

            def __init__(self, name: bytes) -> None:
                self.name = name
                self.out = b""

            def decrypt(self, data: bytes) -> bytes:
                if data:
                    self.out += b"<" + self.name + b">"
                return data

            def encrypt(self, data: bytes) -> None:
                self.out += self.name + b"(" + data + b")"

            def outgoing(self) -> bytes:
                out, self.out = self.out, b""
                return out

        async with pair() as ends:
            layers: Any = (Layer(b"outer"), Layer(b"inner"))
            ends.connection._layers = layers
            await ends.peer.send(b"data")
            await ends.listening.until(b"data")
            said = b"<outer>outer(<inner>)"
            assert await ends.peer.received.receive_exactly(len(said)) == said

    @pytest.mark.skipif(which("openssl") is None, reason="requires openssl")
    async def test_a_key_update_gets_a_response(self, tmp_path: Path) -> None:
        pem = tmp_path / "server.pem"
        authority().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
        command = ["openssl", "s_server", "-cert", str(pem), "-key", str(pem), "-tls1_3", "-msg"]
        with anyio.fail_after(10):
            async with await anyio.open_process(
                [*command, "-accept", "127.0.0.1:0"], stderr=subprocess.STDOUT
            ) as process:
                assert process.stdin is not None
                assert process.stdout is not None
                said = b""
                while (found := re.search(rb"ACCEPT 127\.0\.0\.1:(\d+)\n", said)) is None:
                    said += await process.stdout.receive()
                target = Target("https", "127.0.0.1", int(found[1]))
                opened = await connect(target, ssl_context=client_context(), uds=None)
                connection = SocketConnection(
                    opened.socket, opened.layers, target, current_reactor()
                )
                listening = connection.receiver = Listening()
                await process.stdin.send(b"K\n")
                while b"KeyUpdate" not in said:
                    said += await process.stdout.receive()
                await process.stdin.send(b"under the new key\n")
                await listening.until(b"under the new key\n")
                await connection.send(b"under ours\n")
                while b"under ours" not in said:
                    said += await process.stdout.receive()
                assert b"<<< TLS 1.3, Handshake [length 0005], KeyUpdate" in said
                connection.close()
                process.kill()
