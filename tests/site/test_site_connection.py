"""Connections of clients that are slow, silent, greedy or gone; TLS; accepting connections."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Any

import anyio
import pytest
from anyio.streams.tls import TLSStream
from starlette.types import Receive, Scope, Send
from support.blocked import all_tasks_blocked
from support.servers import client_context, server_context
from support.site_wire import Wire, connected, hosting

from gprochat_anyio import _accepting
from gprochat_anyio._accepting import accept_connections, listen
from gprochat_anyio.site._asgi_cycle import AsgiCycle
from gprochat_anyio.site._connection_owner import ServerLimits
from gprochat_anyio.site._served_connection import ServedConnection
from gprochat_anyio.transport._reactor import current_reactor
from gprochat_anyio.transport._target import Target

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
LIMITS = ServerLimits(
    idle_seconds=5, head_seconds=7, body_seconds=30, unread_seconds=60, lingering_seconds=4
)


class Owner:
    """A server that runs no requests, with a manual clock."""

    def __init__(self) -> None:
        self.limits = LIMITS
        self.origin = Target("http", "127.0.0.1", 80)
        self.ssl_context: ssl.SSLContext | None = None
        self.reactor = current_reactor()
        self.draining = False
        self.started: list[AsgiCycle] = []
        self.gone: list[ServedConnection] = []
        self.now = self.reactor.clock() + 1000  # so that the reactor finds nothing due
        self.reactor.clock = lambda: self.now

    def start(self, cycle: AsgiCycle) -> None:
        self.started.append(cycle)

    def scope_of(self, request: Any, client: Any) -> Scope:
        return {"method": "GET"}

    def closed(self, connection: ServedConnection) -> None:
        self.gone.append(connection)


class Served:
    """A connection, its owner, and the client's end."""

    def __init__(self) -> None:
        self.owner = Owner()
        ours, self.client = socket.socketpair()
        ours.setblocking(False)
        self.connection = ServedConnection(self.owner, ours, ("127.0.0.1", 1))

    def wait(self, seconds: float) -> bool:
        """Advance the clock. Return True if the deadline has passed."""
        self.owner.now += seconds
        if self.connection.due(self.owner.now) > self.owner.now:
            return False
        self.connection.expire()
        return True

    @property
    def is_closed(self) -> bool:
        return bool(self.owner.gone)


@pytest.fixture
async def served() -> Any:
    made = Served()
    yield made
    made.connection.close()
    made.client.close()


class TestDeadlines:
    async def test_an_idle_connection(self, served: Served) -> None:
        assert not served.wait(4.9)
        assert served.wait(0.1)
        assert served.is_closed

    async def test_only_the_end_of_a_connection_has_a_timer_of_its_own(
        self, served: Served
    ) -> None:
        """The other phases are found by a check every few seconds: idle connections are many."""
        before = served.connection._entry
        assert before
        assert before.at == served.connection.due(served.owner.now) == served.owner.now + 5
        served.owner.now += 1
        served.connection.feed(POST)
        assert served.connection._entry is before
        served.connection.feed(b"invalid\r\n\r\n")
        assert before.watched is None
        last = served.connection._entry
        assert last
        assert last.at == served.owner.now + 4

    async def test_the_end_of_a_connection_while_the_client_does_not_read(
        self, served: Served
    ) -> None:
        served.connection._connection.write(bytes(20_000_000))
        served.connection.feed(b"invalid\r\n\r\n")
        last = served.connection._entry
        assert last
        assert last.at == served.owner.now + 4, "it may read at any moment"
        assert not served.wait(4)

    async def test_a_head(self, served: Served) -> None:
        served.wait(4.9)
        served.connection.feed(GET[:5])
        assert not served.wait(4)
        served.connection.feed(GET[5:6])  # does not extend the deadline
        assert not served.wait(2.9)
        assert served.wait(0.1)
        assert served.is_closed

    async def test_a_response_has_none(self, served: Served) -> None:
        served.connection.feed(GET)
        assert not served.wait(100_000)

    async def test_a_silent_body(self, served: Served) -> None:
        served.connection.feed(POST + b"Content-Length: 9\r\n\r\na")
        assert not served.wait(29.9)
        assert served.wait(0.1)
        assert served.client.recv(1000).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert served.client.recv(1000) == b""
        # It waits for the client to close, but only for a while.
        assert not served.is_closed
        assert served.wait(4)
        assert served.is_closed

    async def test_a_body_that_trickles(self, served: Served) -> None:
        served.connection.feed(POST + b"Content-Length: 999999\r\n\r\n")
        for _ in range(29):
            served.connection.feed(b"a")
            assert not served.wait(1)
        served.connection.feed(b"a")
        assert served.wait(1.1)

    async def test_a_body_that_is_fast_enough(self, served: Served) -> None:
        served.connection.feed(POST + b"Content-Length: 999999\r\n\r\n")
        for _ in range(50):
            served.connection.feed(b"a" * 1000)
            assert not served.wait(1)
        assert not served.wait(28.9)  # a fast body never has more time than at first
        assert served.wait(0.2)

    async def test_a_body_pauses_for_the_application(self, served: Served) -> None:
        served.connection.feed(POST + b"Content-Length: 999999\r\n\r\n")
        served.wait(20)
        served.connection.feed(b"a" * 100_000)
        assert not served.wait(100_000)
        served.connection.body_read()
        served.connection.body_read()
        assert not served.wait(29.9)
        assert served.wait(0.2)

    async def test_a_client_that_does_not_read(self, served: Served) -> None:
        served.connection.feed(GET)
        async with anyio.create_task_group() as tg:
            tg.start_soon(served.connection.send, b"a" * 10_000_000)
            await all_tasks_blocked()
            assert not served.wait(59.9)
            served.client.setblocking(False)
            received = 0
            while received < 1_000_000:
                try:
                    received += len(served.client.recv(100_000))
                except BlockingIOError:
                    await anyio.lowlevel.checkpoint()
            await all_tasks_blocked()
            assert not served.wait(59.9)
            assert served.wait(0.1)
            assert served.is_closed

    async def test_a_client_that_neither_sends_nor_reads(self, served: Served) -> None:
        served.connection.feed(POST + b"Content-Length: 9\r\n\r\n")
        async with anyio.create_task_group() as tg:
            tg.start_soon(served.connection.send, b"a" * 10_000_000)
            await all_tasks_blocked()
            assert not served.wait(59.9)
            assert served.wait(0.1)
            assert served.is_closed

    async def test_data_before_the_deadline_is_handled(self, served: Served) -> None:
        served.client.send(GET)
        served.connection.look()
        assert len(served.owner.started) == 1


async def test_after_the_last_response_nothing_is_read(served: Served) -> None:
    served.connection.feed(b"\0")
    assert served.client.recv(1000).startswith(b"HTTP/1.1 400 ")
    served.connection.feed(GET)
    assert served.owner.started == []
    served.connection.drain()
    assert served.is_closed
    served.connection.close()
    assert len(served.owner.gone) == 1


async def test_an_invalid_body_is_refused_before_the_response(served: Served) -> None:
    served.connection.feed(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    served.connection.feed(b"zz\r\n")
    assert served.client.recv(1000).startswith(b"HTTP/1.1 400 ")
    await served.owner.started[0].run(None)  # type: ignore[arg-type] # it is not called


async def test_an_invalid_body_cuts_off_the_response(served: Served) -> None:
    served.connection.feed(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    served.connection.encode((200, ()), b"so far", last=False)
    served.connection.feed(b"zz\r\n")
    assert served.is_closed
    assert served.client.recv(1000) == b""


async def test_a_defect_closes_the_connection(served: Served) -> None:
    served.connection.broken(ValueError())
    assert served.is_closed
    served.connection.response_sent()  # the request ends later


@pytest.mark.slow
async def test_a_flood_of_requests_is_served_or_cut_off() -> None:
    running = most = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal running, most
        assert scope["type"] == "http"
        running += 1
        most = max(most, running)
        await anyio.lowlevel.checkpoint()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        running -= 1
        await send({"type": "http.response.body"})

    count = LIMITS.pipelined_bytes // len(GET)
    async with hosting(app) as port:
        async with connected(port) as wire:
            await wire.stream.send(GET * count)
            for _ in range(count):
                assert (await wire.read_head()).status == 204
        async with connected(port) as wire:
            with pytest.raises(anyio.BrokenResourceError):
                while True:  # without reading
                    await wire.stream.send(GET * 1000)
    assert most == 1


async def test_clients_that_vanish_leak_nothing() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await receive()
        await anyio.sleep_forever()

    body = POST + b"Content-Length: 9\r\n\r\n123456789"
    until = anyio.Event()
    with anyio.fail_after(10):
        async with hosting(app, until=until, grace=60) as port:
            for number in range(200):
                with socket.create_connection(("127.0.0.1", port)) as client:
                    client.send(body[: number % (len(body) + 1)])
                    if number % 2:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                if not number % 20:
                    await anyio.lowlevel.checkpoint()
            until.set()  # the server ends before its grace period


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    assert scope["scheme"] == "https"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * 3_000_000})


async def secured(wire: Wire, *, standard_compatible: bool) -> TLSStream:
    return await TLSStream.wrap(
        wire.stream,
        hostname="localhost",
        ssl_context=client_context(),
        standard_compatible=standard_compatible,
    )


class TestTLS:
    async def test_large_bodies(self) -> None:
        async with hosting(large, ssl_context=server_context()) as port, connected(port) as wire:
            tls = Wire(await secured(wire, standard_compatible=False))
            for _ in range(2):
                await tls.stream.send(POST + b"Content-Length: 1000000\r\n\r\n" + b"y" * 1_000_000)
                assert (await tls.read_head()).status == 200
                assert len(await tls.read_chunk()) == 3_000_000
                assert await tls.read_chunk() == b""
                break  # the body was not read, so the connection ends

    async def test_the_end_of_the_connection_is_announced(self) -> None:
        """Without a length, the end of the connection ends the response, so TLS must confirm it."""
        async with hosting(large, ssl_context=server_context()) as port, connected(port) as wire:
            tls = await secured(wire, standard_compatible=True)
            await tls.send(b"GET / HTTP/1.0\r\n\r\n")
            received = b""
            with pytest.raises(anyio.EndOfStream):
                while True:
                    received += await tls.receive()
            assert received.endswith(b"x" * 3_000_000)

    async def test_a_slow_handshake_is_cut_off(self) -> None:
        async with hosting(large, ssl_context=server_context(), idle_seconds=0.1) as port:
            async with connected(port) as wire:
                await wire.stream.send(b"\x16\x03\x01")
                assert await wire.read_to_close() == b""


class Listener:
    """A listening socket whose `accept` is scripted."""

    def __init__(self, *steps: OSError) -> None:
        self._steps = iter(steps)
        self._one, self._other = socket.socketpair()
        self._one.send(b"x")  # ready

    def fileno(self) -> int:
        return self._other.fileno()

    def accept(self) -> Any:
        raise next(self._steps, RuntimeError("the end"))

    def close(self) -> None:
        self._one.close()
        self._other.close()


@pytest.fixture
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_accepting, "PAUSE_SECONDS", 0)


@pytest.mark.usefixtures("_no_pause")
@pytest.mark.parametrize(
    ("number", "warned"),
    [(errno.EMFILE, True), (errno.ENOBUFS, True), (errno.ECONNABORTED, False)],
)
async def test_accepting_continues_after_errors(
    number: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    listener: Any = Listener(OSError(number, "why"), BlockingIOError(), OSError(number, "why"))
    with pytest.raises(RuntimeError, match="the end"):
        await accept_connections(listener, lambda *_: None)
    listener.close()
    assert caplog.messages == ["cannot accept a connection: why"] * 2 * warned


async def test_accepting_many_connections_lets_other_tasks_run() -> None:
    accepted: list[socket.socket] = []
    turns: list[int] = []

    async def count() -> None:
        while len(accepted) < 200:
            await anyio.lowlevel.checkpoint()
            turns.append(len(accepted))

    with listen(socket.AF_INET, socket.SOCK_STREAM, 0, ("127.0.0.1", 0)) as listener:
        clients = [socket.create_connection(listener.getsockname()) for _ in range(200)]
        async with anyio.create_task_group() as tg:
            tg.start_soon(accept_connections, listener, lambda sock, _: accepted.append(sock))
            await count()
            tg.cancel_scope.cancel()
        for sock in (*clients, *accepted):
            sock.close()
    assert len(set(turns)) > 2
