"""The byte streams on sockets: nothing read ahead, nothing lost, nothing left open."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute
from anyio.lowlevel import checkpoint, current_token

from gprochat_anyio.testing import Injection, cancelled, injections
from gprochat_anyio.transport._sockets import SocketStream, take_over

from .servers import Peer, black_hole, open_sockets, serving


def only_where_they_are_used() -> None:
    if type(current_token().native_token).__module__.startswith("uvloop"):
        pytest.skip("AnyIO's own streams are used on uvloop")


@asynccontextmanager
async def pair(*, always: bool = True) -> AsyncIterator[tuple[Any, Peer]]:
    """Both ends of a connection.

    :param always: whether ours has to be one of the library's streams
    """

    async def handle(peer: Peer) -> None:
        peers.append(peer)
        accepted.set()
        await anyio.sleep_forever()

    if always:
        only_where_they_are_used()
    peers: list[Peer] = []
    accepted = anyio.Event()
    with anyio.fail_after(10):
        async with serving(handle) as server:
            stream = await take_over(await anyio.connect_tcp("127.0.0.1", server.port))
            assert isinstance(stream, SocketStream) or not always
            await accepted.wait()
            yield stream, peers[0]
            await stream.aclose()
            assert open_sockets(server.port) == 0


async def test_what_is_no_socket_stays_as_it_is() -> None:
    class NoSocket(ByteStream):
        async def receive(self, max_bytes: int = 65536) -> bytes:
            raise AssertionError

        async def send(self, item: bytes) -> None:
            raise AssertionError

        async def send_eof(self) -> None:
            raise AssertionError

        async def aclose(self) -> None:
            raise AssertionError

    stream = NoSocket()
    assert await take_over(stream) is stream


async def test_taking_over_is_all_or_nothing() -> None:
    with anyio.fail_after(10):
        async with serving(black_hole) as server:
            for moment, native in injections():
                at, end = 0, ""
                while end != "not reached":
                    at += 1
                    theirs = await anyio.connect_tcp("127.0.0.1", server.port)
                    ours: list[ByteStream] = []

                    async def take(
                        theirs: ByteStream = theirs, ours: list[ByteStream] = ours
                    ) -> None:
                        ours.append(await take_over(theirs))

                    end = await cancelled(Injection(at, moment, native), take)
                    for stream in ours:
                        await stream.aclose()
                    assert open_sockets(server.port) == 0
            await server.all_ended()


async def test_no_descriptor_is_left_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*args: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    only_where_they_are_used()
    monkeypatch.setattr(socket, "fromfd", none_left)
    with anyio.fail_after(10):
        async with serving(black_hole) as server:
            theirs = await anyio.connect_tcp("127.0.0.1", server.port)
            with pytest.raises(OSError, match="Too many open files"):
                await take_over(theirs)
            assert open_sockets(server.port) == 0


async def test_data_goes_both_ways() -> None:
    async with pair(always=False) as (stream, peer):
        await stream.send(b"hello")
        assert await peer.received.receive_exactly(5) == b"hello"
        await peer.send(b"world")
        assert await stream.receive(3) == b"wor"
        assert await stream.receive(3) == b"ld"
        await stream.send_eof()
        with pytest.raises(anyio.EndOfStream):
            await peer.stream.receive()
        await peer.send(b"!")
        await peer.stream.aclose()
        assert await stream.receive() == b"!"
        for _ in range(2):
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()


async def test_a_large_send_waits_for_the_reader() -> None:
    async with pair(always=False) as (stream, peer):
        data = bytes(range(256)) * 20_000
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.send, data)
            assert await peer.received.receive_exactly(len(data)) == data


async def test_nothing_is_read_ahead() -> None:
    async with pair() as (stream, peer):
        await peer.send(b"one")
        assert await stream.receive() == b"one"
        await peer.send(b"two")
        for _ in range(5):
            await checkpoint()
        raw = stream.extra(SocketAttribute.raw_socket)
        assert raw.recv(10, socket.MSG_PEEK) == b"two"
        assert await stream.receive() == b"two"


@pytest.mark.parametrize("sent", [False, True])
async def test_a_cancelled_receive_loses_nothing(*, sent: bool) -> None:
    async with pair(always=False) as (stream, peer):
        for moment, native in injections():
            for at in range(1, 4):
                received: list[bytes] = []

                async def receive(received: list[bytes] = received) -> None:
                    received.append(await stream.receive())

                if sent:
                    await peer.send(b"data")
                else:
                    with anyio.move_on_after(0.01):
                        await cancelled(Injection(at, moment, native), receive)
                    await peer.send(b"data")
                with anyio.move_on_after(0.01):
                    await cancelled(Injection(at, moment, native), receive)
                if not received:
                    received.append(await stream.receive())
                assert received == [b"data"]


async def test_a_receive_that_is_cancelled_as_the_data_comes(anyio_backend_name: str) -> None:
    async with pair(always=False) as (stream, peer):
        for ticks in range(8):
            received = b""
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:

                    async def receive() -> None:
                        nonlocal received
                        received += await stream.receive(3)

                    tasks.start_soon(receive)
                    await anyio.wait_all_tasks_blocked()
                    await peer.send(b"data")
                    for _ in range(ticks):
                        await checkpoint()
                    scope.cancel()
            while len(received) < 4:
                received += await stream.receive(3)
            assert received == b"data"


async def test_a_native_cancellation_in_the_same_tick_as_the_data(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("Trio has scopes only")
    async with pair() as (stream, peer):
        real = stream._received

        def received(max_bytes: int) -> bytes | None:
            asyncio.get_running_loop().call_soon(task.cancel)
            data: bytes | None = real(max_bytes)
            return data

        task = asyncio.create_task(stream.receive())
        await anyio.wait_all_tasks_blocked()
        stream._received = received
        await peer.send(b"data")
        await asyncio.wait([task])
        assert task.cancelled()
        stream._received = real
        assert await stream.receive(2) == b"da"
        assert await stream.receive() == b"ta"


async def test_a_spurious_wake_up_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair() as (stream, peer):
        spurious = [True]
        real = stream._received

        def received(max_bytes: int) -> bytes | None:
            return None if spurious and spurious.pop() else real(max_bytes)

        monkeypatch.setattr(stream, "_received", received)
        await peer.send(b"data")
        assert await stream.receive() == b"data"
        assert not spurious


async def test_reading_when_nothing_is_there_gives_nothing() -> None:
    async with pair() as (stream, _):
        assert stream._received(10) is None


async def test_two_tasks_can_not_receive() -> None:
    async with pair(always=False) as (stream, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(stream.receive)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await stream.receive()
        await peer.send(b"data")


class TestEnds:
    async def test_a_reset(self) -> None:
        async with pair(always=False) as (stream, peer):
            peer.reset()
            await peer.stream.aclose()
            with pytest.raises(anyio.BrokenResourceError):
                await stream.receive()
            with pytest.raises((anyio.BrokenResourceError, anyio.ClosedResourceError)):
                for _ in range(10):
                    await stream.send(b"x")

    async def test_closed(self) -> None:
        async with pair(always=False) as (stream, _):
            for _ in range(2):
                await stream.aclose()
                with pytest.raises(anyio.ClosedResourceError):
                    await stream.receive()
                with pytest.raises(anyio.ClosedResourceError):
                    await stream.send(b"x")

    async def test_closed_while_a_task_receives(self) -> None:
        async with pair(always=False) as (stream, _), anyio.create_task_group() as tasks:

            async def receive() -> None:
                with pytest.raises(anyio.ClosedResourceError):
                    await stream.receive()

            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            await stream.aclose()

    async def test_closed_while_a_task_sends(self) -> None:
        async with pair() as (stream, _), anyio.create_task_group() as tasks:

            async def send() -> None:
                with pytest.raises(anyio.ClosedResourceError):
                    await stream.send(b"x" * 50_000_000)

            tasks.start_soon(send)
            await anyio.wait_all_tasks_blocked()
            stream.close()

    async def test_closing_needs_no_event_loop(self) -> None:
        async with pair() as (stream, peer):
            await peer.send(b"data")
            stream.close()
            stream.close()
            assert stream.extra(SocketAttribute.raw_socket).fileno() == -1

    async def test_every_operation_is_a_checkpoint(self) -> None:
        async with pair() as (stream, peer):
            await peer.send(b"data")
            for operation in (partial(stream.send, b"x"), stream.receive):
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await operation()
                assert scope.cancelled_caught
            assert await stream.receive() == b"data"

    async def test_no_watching_goes_on_for_nobody(self, anyio_backend_name: str) -> None:
        if anyio_backend_name != "asyncio":
            pytest.skip("Trio watches for as long as somebody waits")
        async with pair() as (stream, peer):
            await peer.send(b"one")
            await stream.receive()
            assert stream._watching
            await peer.send(b"two")
            for _ in range(5):
                await checkpoint()
            assert not stream._watching
            assert await stream.receive() == b"two"
