"""One request and its answer on one connection, as the library's own client uses it."""

from __future__ import annotations

import gc
import socket
import weakref
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import SocketAttribute
from anyio.lowlevel import checkpoint

from gprochat_anyio.transport._exchange import READ_SIZE, Exchange, exchange
from gprochat_anyio.transport._failures import ConnectionLost, ProtocolViolation, TransportFailure
from gprochat_anyio.transport._pool import Pool
from gprochat_anyio.transport._stages import OnStage
from gprochat_anyio.transport._target import Target

from .servers import (
    CHUNKED,
    LAST_CHUNK,
    OK,
    Handler,
    Peer,
    Server,
    client_context,
    closing,
    open_sockets,
    repeating,
    scripted,
    server_context,
    serving,
)

GET = b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: site.test\r\nContent-Length: %d\r\n\r\n"
CHUNKED_POST = b"POST / HTTP/1.1\r\nHost: site.test\r\nTransfer-Encoding: chunked\r\n\r\n"
TLS = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


class Site:
    """A server, and a pool of connections to it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.pool = Pool(max_connections=5, ssl_context=client_context())
        self.target = Target("https" if server.tls else "http", "127.0.0.1", server.port)
        self.stages: list[str] = []

    async def send(
        self, head: bytes = GET, body: bytes | AsyncIterator[bytes] = b"", **options: bool
    ) -> Exchange:
        return await exchange(
            self.pool, self.target, head, body, on_stage=self.stages.append, **options
        )

    async def get(self, head: bytes = GET, body: bytes | AsyncIterator[bytes] = b"") -> bytes:
        made = await self.send(head, body)
        try:
            return await rest_of(made)
        finally:
            await made.aclose()

    @property
    def kept(self) -> int:
        return sum(map(len, self.pool._idle.values()))


@asynccontextmanager
async def site(handler: Handler, *, tls: bool = False) -> AsyncIterator[Site]:
    """A site, all of whose connections are closed again at the end of the block."""
    with anyio.fail_after(10):
        async with serving(handler, tls=server_context() if tls else None) as server:
            connected = Site(server)
            yield connected
            await connected.pool.aclose()
            assert connected.pool._free == 5
            assert open_sockets(server.port) == 0
            await server.all_ended()


async def rest_of(made: Exchange) -> bytes:
    body = b""
    while pieces := await made.receive():
        body += b"".join(pieces)
    return body


class TestReuse:
    @TLS
    async def test_a_complete_answer_keeps_the_connection(self, *, tls: bool) -> None:
        async with site(repeating(), tls=tls) as to:
            first = await to.send()
            assert not first.reused
            assert await rest_of(first) == b"ok"
            assert to.kept == 0
            await first.aclose()
            assert to.kept == 1
            second = await to.send()
            assert second.reused
            await second.aclose()
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
    async def test_an_answer_that_ends_the_connection(self, answer: bytes) -> None:
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
    async def test_the_site_says_for_how_long(self, field: bytes, seconds: float) -> None:
        answer = b"HTTP/1.1 200 OK\r\n" + field + b"Content-Length: 2\r\n\r\nok"
        async with site(repeating(answer)) as to:
            before = anyio.current_time()
            await to.get()
            after = anyio.current_time()
            (connection,) = to.pool._idle[to.target]
            assert before + seconds <= connection.expires <= after + seconds

    @pytest.mark.parametrize("bodiless", [False, True])
    async def test_an_answer_without_a_body(self, *, bodiless: bool) -> None:
        status = b"200 OK" if bodiless else b"204 No Content"
        async with site(repeating(b"HTTP/1.1 " + status + b"\r\nContent-Length: 9\r\n\r\n")) as to:
            for _ in range(2):
                made = await to.send(bodiless=bodiless)
                assert await made.receive() == []
                await made.aclose()
            assert to.server.accepted == 1

    @TLS
    async def test_an_unread_answer_closes_it_at_once(self, *, tls: bool) -> None:
        async with site(scripted(CHUNKED + b"2\r\nok\r\n"), tls=tls) as to:
            made = await to.send()
            assert await made.receive() == [b"ok", b""]
            await made.aclose()
            assert open_sockets(to.server.port) == 0
            assert to.pool._free == 5
            await made.aclose()  # again, which is nothing

    async def test_an_exchange_that_was_closed_receives_nothing_of_others(self) -> None:
        async with site(repeating()) as to:
            complete = await to.send()
            await rest_of(complete)
            await complete.aclose()
            other = await to.send()
            assert other.reused
            assert await complete.receive() == []
            await other.aclose()

            unfinished = await to.send(fresh=True)
            unfinished.parser.complete = False
            unfinished.parser.take()
            await unfinished.aclose()
            with pytest.raises(ConnectionLost):
                await unfinished.receive()


class TestEnds:
    """Every way in which an answer can break off."""

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
            assert to.pool._free == 5

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
                body += b"".join(await made.receive())
            received.set()
            with pytest.raises(ConnectionLost, match="before its answer was complete") as caught:
                await made.receive()
            assert body == expected
            assert caught.value.answered
            assert caught.value.reset is reset
            await made.aclose()
            assert to.pool._free == 5

    async def test_a_body_up_to_the_end_of_the_connection(self) -> None:
        async with site(closing(b"HTTP/1.1 200 OK\r\n\r\nup to the end")) as to:
            assert await to.get() == b"up to the end"
            assert to.kept == 0

    async def test_no_such_body_without_tls_saying_that_it_ends(self) -> None:
        """Anybody on the way could cut it short."""
        async with site(closing(b"HTTP/1.1 200 OK\r\n\r\nup to the"), tls=True) as to:
            made = await to.send()
            assert await made.receive() == [b"up to the"]
            with pytest.raises(ConnectionLost):
                await made.receive()
            await made.aclose()

    async def test_a_kept_connection_that_is_closed_when_the_request_comes(self) -> None:
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
    async def test_what_is_no_answer(self, wire: bytes) -> None:
        async with site(scripted(wire)) as to:
            with pytest.raises(ProtocolViolation):
                await to.send()
            assert open_sockets(to.server.port) == 0
            assert to.pool._free == 5

    async def test_a_violation_within_the_body_comes_after_what_was_good(self) -> None:
        async with site(scripted(CHUNKED + b"2\r\nok\r\n", b"")) as to:
            made = await to.send()
            assert await made.receive() == [b"ok", b""]
            made.parser.feed(b"2\r\n!!\r\n")
            assert await made.receive() == [b"!!", b""]
            await made.aclose()

    async def test_a_task_that_reads_when_another_closes(self) -> None:
        async with site(scripted(CHUNKED)) as to:
            made = await to.send()

            async def close() -> None:
                await anyio.wait_all_tasks_blocked()
                await made.aclose()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(close)
                with pytest.raises(ConnectionLost):
                    await made.receive()

    @pytest.mark.parametrize("ticks", range(6))
    async def test_a_task_that_reads_when_another_closes_as_data_comes(self, ticks: int) -> None:
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
                await anyio.wait_all_tasks_blocked()
                go_on.set()
                for _ in range(ticks):
                    await checkpoint()
                await made.aclose()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(close)
                try:
                    assert await made.receive() == [b"ok", b""]
                except TransportFailure as failure:
                    assert isinstance(failure, ConnectionLost)  # noqa: PT017 - or it was in time


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

    async def test_an_iterators_exception_leaves_as_it_is(self) -> None:
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
            assert to.pool._free == 5
            assert open_sockets(to.server.port) == 0

    @TLS
    @pytest.mark.parametrize("body", ["bytes", "iterator"])
    async def test_an_answer_before_the_request_was_sent_whole(
        self, body: str, *, tls: bool
    ) -> None:
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
            assert made.parser.status == 413
            go_on.set()
            try:
                assert await rest_of(made) == b"too much"
            except ConnectionLost:
                assert tls
            await made.aclose()
            assert to.kept == 0
            assert open_sockets(to.server.port) == 0
        assert closed == (body == "iterator")

    @TLS
    @pytest.mark.parametrize("body", ["bytes", "iterator"])
    async def test_a_success_before_the_request_was_sent_whole(
        self, body: str, monkeypatch: pytest.MonkeyPatch, *, tls: bool
    ) -> None:
        """As of a server that answers part by part: it wants the rest."""
        head_read = anyio.Event()
        read_head = Exchange.read_head

        async def read_and_tell(made: Exchange, on_stage: OnStage) -> None:
            await read_head(made, on_stage)
            head_read.set()

        monkeypatch.setattr(Exchange, "read_head", read_and_tell)

        async def parts() -> AsyncGenerator[bytes]:
            yield b"3\r\nhel\r\n"
            await head_read.wait()
            yield b"2\r\nlo\r\n" + LAST_CHUNK

        async def handle(peer: Peer) -> None:
            await peer.head()
            await peer.send(CHUNKED)
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
    async def test_an_answer_before_the_server_resets(self, *, large: bool) -> None:
        """What was sent in vain does not hide what the server had to say."""

        async def handle(peer: Peer) -> None:
            await peer.head()
            await peer.send(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno")

        async with site(handle) as to:
            if large:
                try:
                    made = await to.send(POST % 50_000_000, b"x" * 50_000_000)
                except ConnectionLost as failure:
                    # the reset came first: the system threw the answer away
                    assert failure.reset  # noqa: PT017
                    return
            else:
                made = await to.send(POST % 2, b"ok")
            assert made.parser.status == 401
            await made.aclose()

    @pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
    async def test_a_server_that_closes_while_it_is_sent(self, *, large: bool) -> None:
        async def handle(peer: Peer) -> None:
            await peer.received.receive_exactly(10)
            peer.reset()

        body = b"x" * (50_000_000 if large else 10)
        async with site(handle) as to:
            with pytest.raises(ConnectionLost) as caught:
                await to.send(POST % len(body), body)
            assert not caught.value.answered

    async def test_a_send_that_fails_is_no_reason_not_to_read(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def handle(peer: Peer) -> None:
            await peer.send(b"HTTP/1.1 408 Too Late\r\nContent-Length: 0\r\n\r\n")
            await peer.until_closed()

        async with site(handle) as to:
            connection = await to.pool.acquire(to.target, to.stages.append)

            async def broken(data: bytes) -> None:
                raise anyio.BrokenResourceError

            monkeypatch.setattr(connection.stream, "send", broken)
            await to.pool.give_back(connection, 5)
            while connection.is_quiet():
                await checkpoint()
            monkeypatch.setattr(connection, "_fileno", None)
            made = await to.send()
            assert made.parser.status == 408
            await made.aclose()
            assert to.kept == 0
            assert to.stages == ["connect", "send"]


class TestBackpressure:
    @TLS
    async def test_who_stops_reading_stops_the_reads(self, *, tls: bool) -> None:
        """What a server can send while nobody reads: the kernel's buffers, and at most what one
        read of the event loop brings in."""
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
            connection = made._connection
            assert connection is not None
            raw = connection.stream.extra(SocketAttribute.raw_socket)
            received = len(b"".join(await made.receive()))
            await anyio.wait_all_tasks_blocked()
            before = -1
            while before != sent:  # until the server can send no more
                before = sent
                await anyio.sleep(0.05)
            in_kernel = raw.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            assert sent - received < in_kernel + READ_SIZE * 5
            stopped_at = sent
            while received < stopped_at + 1_000_000:
                pieces = await made.receive()
                assert sum(map(len, pieces)) <= READ_SIZE
                received += sum(map(len, pieces))
            assert sent > stopped_at
            await made.aclose()

    async def test_pieces_are_no_longer_than_a_read(self) -> None:
        async with site(
            scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n" + b"x" * 500_000)
        ) as to:
            made = await to.send()
            total = 0
            while pieces := await made.receive():
                assert len(b"".join(pieces)) <= READ_SIZE
                total += len(b"".join(pieces))
            assert total == 500_000
            await made.aclose()


async def test_closed_by_another_task_as_the_data_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = anyio.Event()

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        await go_on.wait()
        await peer.send(b"2\r\nok\r\n")

    async with site(handle) as to:
        made = await to.send()
        go_on.set()
        receive = made._stream.receive

        async def received_too_late(max_bytes: int) -> bytes:
            data = await receive(max_bytes)
            await made.aclose()
            return data

        monkeypatch.setattr(made._stream, "receive", received_too_late)
        with pytest.raises(ConnectionLost, match="broke before its answer was complete"):
            await rest_of(made)
        assert to.kept == 0


async def test_no_cycle_is_left_by_an_exchange() -> None:
    class Traced(Exchange):
        __slots__ = ("__weakref__",)

    async with site(repeating()) as to:
        gc.collect()
        gc.disable()
        try:
            connection = await to.pool.acquire(to.target, to.stages.append)
            made = Traced(to.pool, connection, bodiless=False)
            await made.send(GET)
            await made.read_head(to.stages.append)
            await rest_of(made)
            await made.aclose()
            gone = weakref.ref(made)
            del made
            assert gone() is None
        finally:
            gc.enable()
