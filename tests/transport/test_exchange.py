"""A request and its response on a connection, as a task reads it."""

from __future__ import annotations

import asyncio
import socket
import weakref
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute
from anyio.lowlevel import checkpoint
from support.blocked import all_tasks_blocked
from support.garbage import without_garbage_collector
from support.servers import (
    CHUNKED,
    LAST_CHUNK,
    OK,
    Peer,
    closing,
    open_sockets,
    repeating,
    scripted,
)

from gprochat_anyio.testing import Injection, cancelled, injections
from gprochat_anyio.transport._connection import READ_SIZE
from gprochat_anyio.transport._exchange import Exchange
from gprochat_anyio.transport._failures import (
    ConnectionLost,
    ProtocolViolation,
    TransportFailure,
    Unreadable,
)
from gprochat_anyio.transport._response_buffer import HIGH, ResponseBuffer
from gprochat_anyio.transport._response_parser import ResponseParser

from .exchanges import CHUNKED_POST, GET, POST, head_of, rest_of, site

TLS = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])

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


class TestSending:
    async def test_the_stages_of_a_small_request(self) -> None:
        async with site(repeating()) as to:
            await to.get()
            assert to.stages == ["connect", "send", "read"]
            to.stages.clear()
            await to.get()
            assert to.stages == ["send", "read"]

    @TLS
    @pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 3_000_000])
    async def test_bodies_of_any_size(self, size: int, *, tls: bool) -> None:
        seen = b""

        async def handle(peer: Peer) -> None:
            nonlocal seen
            while True:
                seen = (await peer.request()).body
                await peer.send(OK)

        body = bytes(range(256)) * (size // 256) + b"!" * (size % 256)
        async with site(handle, tls=tls) as to:
            for _ in range(2):
                assert await to.get(POST % size, body) == b"ok"
                assert seen == body
            assert to.server.accepted == 1
            assert to.stages[-1] == "read"

    async def test_an_iterators_parts(self) -> None:
        async def parts() -> AsyncGenerator[bytes]:
            for part in (b"3\r\nhel\r\n", b"2\r\nlo\r\n", LAST_CHUNK):
                await checkpoint()
                yield part

        seen = b""

        async def handle(peer: Peer) -> None:
            nonlocal seen
            seen = (await peer.request()).body
            await peer.send(OK)
            await peer.until_closed()

        async with site(handle) as to:
            assert await to.get(CHUNKED_POST, parts()) == b"ok"
            assert seen == b"hello"
            assert to.kept == 1

    async def test_an_iterators_exception_is_not_wrapped(self) -> None:
        class OwnError(Exception):
            pass

        own = OwnError()

        async def parts() -> AsyncGenerator[bytes]:
            yield b"3\r\nhel\r\n"
            raise own

        async with site(repeating()) as to:
            with pytest.raises(OwnError) as caught:
                await to.get(CHUNKED_POST, parts())
            assert caught.value is own
            assert to.pool.statistics().available == 5
            assert open_sockets(to.server.port) == 0

    @TLS
    @pytest.mark.parametrize("body", ["bytes", "iterator"])
    async def test_a_response_before_the_complete_request(self, body: str, *, tls: bool) -> None:
        closed = 0

        async def endless() -> AsyncGenerator[bytes]:
            nonlocal closed
            try:
                while True:
                    yield b"x" * 65536
            finally:
                closed += 1

        async def handle(peer: Peer) -> None:
            await peer.head()
            await peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 8\r\n\r\nto")
            await go_on.wait()
            await peer.send(b"o much")
            await peer.until_closed()

        go_on = anyio.Event()
        async with site(handle, tls=tls) as to:
            made = await to.send(
                POST % 50_000_000, b"x" * 50_000_000 if body == "bytes" else endless()
            )
            assert head_of(made).status == 413
            go_on.set()
            try:
                assert await rest_of(made) == b"too much"
            except ConnectionLost:
                assert tls
            made.close()
            assert to.kept == 0
            assert open_sockets(to.server.port) == 0
        assert closed == (body == "iterator")

    @TLS
    @pytest.mark.parametrize("body", ["bytes", "iterator"])
    async def test_a_success_before_the_complete_request(
        self, body: str, monkeypatch: pytest.MonkeyPatch, *, tls: bool
    ) -> None:
        """A server that responds part by part needs the rest."""
        head_has_come = anyio.Event()
        on_head = ResponseBuffer.on_head

        def on_head_and_tell(made: ResponseBuffer, response: ResponseParser) -> None:
            on_head(made, response)
            head_has_come.set()

        monkeypatch.setattr(ResponseBuffer, "on_head", on_head_and_tell)

        async def parts() -> AsyncGenerator[bytes]:
            yield b"3\r\nhel\r\n"
            await head_has_come.wait()
            yield b"2\r\nlo\r\n" + LAST_CHUNK

        async def handle(peer: Peer) -> None:
            await peer.head()
            await peer.send(CHUNKED)
            await head_has_come.wait()
            if body == "bytes":
                await peer.received.receive_exactly(5_000_000)
            else:
                await peer.received.receive_until(LAST_CHUNK, 100)
            await peer.send(b"2\r\nok\r\n" + LAST_CHUNK)
            await peer.until_closed()

        async with site(handle, tls=tls) as to:
            if body == "bytes":
                assert await to.get(POST % 5_000_000, b"x" * 5_000_000) == b"ok"
            else:
                assert await to.get(CHUNKED_POST, parts()) == b"ok"
            assert to.kept == 1

    @pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
    async def test_a_response_before_the_server_resets(self, *, large: bool) -> None:
        """A failed upload does not hide the server's response."""

        async def handle(peer: Peer) -> None:
            await peer.head()
            await peer.send(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno")

        async with site(handle) as to:
            if large:
                try:
                    made = await to.send(POST % 50_000_000, b"x" * 50_000_000)
                except ConnectionLost as failure:
                    # the reset arrived first: the system discarded the response
                    assert failure.reset  # noqa: PT017
                    return
            else:
                made = await to.send(POST % 2, b"ok")
            assert head_of(made).status == 401
            made.close()

    @pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
    async def test_a_server_that_closes_during_the_upload(self, *, large: bool) -> None:
        async def handle(peer: Peer) -> None:
            await peer.received.receive_exactly(10)
            peer.reset()

        body = b"x" * (50_000_000 if large else 10)
        async with site(handle) as to:
            with pytest.raises(ConnectionLost) as caught:
                await to.send(POST % len(body), body)
            assert not caught.value.answered

    @TLS
    async def test_a_refused_upload_stops(self, *, tls: bool) -> None:
        """The rest of the current part is not sent after the response."""
        received = 0

        async def handle(peer: Peer) -> None:
            nonlocal received
            await peer.head()
            await peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n")
            await go_on.wait()
            await peer.send(b"no")
            received = await peer.until_closed()

        go_on = anyio.Event()
        async with site(handle, tls=tls) as to:
            made = await to.send(POST % 30_000_000, b"x" * 30_000_000)
            assert head_of(made).status == 413
            go_on.set()
            try:
                assert await rest_of(made) == b"no"
            except ConnectionLost:
                assert tls
            made.close()
            await to.server.all_ended()
        assert received < 15_000_000


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


class Sink:
    """A sink that records its calls."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.exchange: Exchange
        self.over = anyio.Event()

    def on_head(self, response: ResponseParser) -> None:
        self.told.append(response.status)

    def on_body(self, data: bytes) -> None:
        self.told.append(data)

    def on_end(self) -> None:
        self.told.append("end")
        self.over.set()

    def on_failure(self, failure: BaseException) -> None:
        self.told.append(failure)
        self.over.set()


class TestSinks:
    @pytest.mark.parametrize("at", ["on_head", "on_body"])
    async def test_closed_by_its_sink(self, at: str) -> None:
        """Data from the same read is discarded."""
        async with site(scripted(OK)) as to:
            connection = await to.pool.acquire(to.target, to.stages.append)
            sink = Sink()
            made = sink.exchange = Exchange(to.pool, connection, sink)
            take = getattr(sink, at)

            def close(taken: object) -> None:
                take(taken)
                sink.exchange.close()
                sink.over.set()

            setattr(sink, at, close)
            await made.send(GET)
            await sink.over.wait()
            assert sink.told == ([200] if at == "on_head" else [200, b"ok"])
            assert made.closed
            assert to.pool.statistics().available == 5

    @pytest.mark.parametrize("at", ["on_head", "on_body", "on_end"])
    async def test_a_sink_with_a_defect_is_notified(
        self, at: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with site(repeating()) as to:
            connection = await to.pool.acquire(to.target, to.stages.append)
            sink = Sink()
            made = Exchange(to.pool, connection, sink)

            def fail(*_: object) -> None:
                raise ZeroDivisionError

            setattr(sink, at, fail)
            await made.send(GET)
            await sink.over.wait()
            assert isinstance(sink.told[-1], Unreadable)
            assert connection.closed
            assert caplog.records[-1].exc_info is not None
            assert await to.get() == b"ok"
            assert to.server.accepted == 2

    async def test_a_closed_exchange_does_nothing(self) -> None:
        async with site(repeating()) as to:
            connection = await to.pool.acquire(to.target, to.stages.append)
            sink = Sink()
            made = Exchange(to.pool, connection, sink)
            for _ in range(2):
                made.close()
            await made.send(GET)
            made.look()
            made.pause()
            made.resume()
            made.broken(ZeroDivisionError())
            await made.wait_closed()
            assert not made.paused
            assert sink.told == []
            assert to.pool.statistics().available == 5

    async def test_look_takes_available_data(self) -> None:
        async with site(repeating()) as to:
            connection = await to.pool.acquire(to.target, to.stages.append)
            sink = Sink()
            made = Exchange(to.pool, connection, sink)
            await made.send(GET)
            while "end" not in sink.told:
                made.look()
                await checkpoint()
            assert sink.told == [200, b"ok", "end"]

    async def test_paused_and_complete(self) -> None:
        """A connection in the pool is read again, because the site may close it."""
        async with site(scripted(OK)) as to:
            connection = await to.pool.acquire(to.target, to.stages.append)
            sink = Sink()
            made = Exchange(to.pool, connection, sink)
            setattr(sink, "on_body", lambda _: made.pause())  # noqa: B010 - not of the same type
            await made.send(GET)
            await sink.over.wait()
            assert not connection.paused
            assert to.kept == 1


async def test_an_exchange_leaves_no_cycle() -> None:
    class Traced(Exchange):
        __slots__ = ("__weakref__",)

    async with site(repeating()) as to:
        with without_garbage_collector():
            connection = await to.pool.acquire(to.target, to.stages.append)
            buffer = ResponseBuffer(connection.reactor.signal())
            made = buffer.exchange = Traced(to.pool, connection, buffer)
            await made.send(GET)
            assert await rest_of(buffer) == b"ok"
            gone: list[weakref.ref[Any]] = [weakref.ref(made), weakref.ref(buffer)]
            made.close()
            del made, buffer
            assert [each() for each in gone] == [None, None]
