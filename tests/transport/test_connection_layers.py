"""Layers of TLS on a connection: ends, broken records, key updates."""

from __future__ import annotations

import re
import ssl
import subprocess
from pathlib import Path
from shutil import which
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from anyio.streams.tls import TLSStream
from support.blocked import all_tasks_blocked
from support.proxies import proxying
from support.servers import OK, authority, client_context, repeating, server_context, serving

from gprochat_anyio.transport._connecting import connect
from gprochat_anyio.transport._failures import TLSBroken
from gprochat_anyio.transport._reactor import current_reactor
from gprochat_anyio.transport._socket_connection import SocketConnection
from gprochat_anyio.transport._target import Proxy, Target

from .pairs import pair, unread
from .receivers import Listening

pytestmark = pytest.mark.usefixtures("reader_tasks")


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
