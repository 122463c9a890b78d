"""Sending over a connection to peers that read slowly, reset or respond early."""

from __future__ import annotations

import socket
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from gprochat_anyio.testing import Injection, cancelled, injections

from .marks import TLS
from .pairs import Pair, pair, unread, until_sending

pytestmark = pytest.mark.usefixtures("reader_tasks")


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

    async def test_the_end_does_not_cut_data_that_waits_for_room(self) -> None:
        async with pair() as ends:
            data = bytes(20_000_000)
            ends.connection.write(data)
            ends.connection.end_sending()
            assert await ends.peer.received.receive_exactly(len(data)) == data
