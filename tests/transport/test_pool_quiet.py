"""Idle connections that receive data, end, or cannot be watched."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from anyio.streams.tls import TLSStream
from support.blocked import all_tasks_blocked
from support.reactors import running_reactor
from support.servers import (
    ENDS,
    OK,
    Peer,
    black_hole,
    client_context,
    open_sockets,
    repeating,
    server_context,
    serving,
)

from gprochat_anyio.transport import _reactor
from gprochat_anyio.transport._connection import Connection
from gprochat_anyio.transport._failures import ConnectFailure
from gprochat_anyio.transport._pool import Pool
from gprochat_anyio.transport._target import Target

from .exchanges import GET, exchange, get, idle, no_stage, rest_of


@pytest.mark.usefixtures("reader_tasks")
class TestQuiet:
    """On real sockets: an idle connection with incoming data is closed."""

    @asynccontextmanager
    async def after_an_exchange(
        self, act: Callable[[Peer], Any], *, tls: bool = False
    ) -> AsyncIterator[tuple[Pool, Target, Connection]]:
        async def handle(peer: Peer) -> None:
            first = server.accepted == 1
            await peer.request()
            await peer.send(OK)
            if not first:
                await peer.until_closed()
            await go_on.wait()
            await act(peer)

        go_on = anyio.Event()
        context = server_context() if tls else None
        with anyio.fail_after(10):
            async with serving(handle, tls=context) as server:
                pool = Pool(max_connections=2, ssl_context=client_context())
                target = Target("https" if tls else "http", "127.0.0.1", server.port)
                await get(pool, target)
                (kept,) = pool.statistics().idle
                assert kept.is_quiet()
                go_on.set()
                yield pool, target, kept
                pool.close()
                assert running_reactor() is None
                assert open_sockets(server.port) == 0

    @pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
    @pytest.mark.parametrize("end", ["FIN", "RST", "data"])
    async def test_is_closed_immediately(self, end: str, *, tls: bool) -> None:
        async def act(peer: Peer) -> None:
            if end == "RST":
                peer.reset()
            elif end == "data":
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad")
                await peer.until_closed()

        async with self.after_an_exchange(act, tls=tls) as (pool, target, kept):
            while idle(pool):
                await checkpoint()
            assert kept.closed
            assert kept.fileno() == -1
            assert running_reactor() is None
            assert pool.statistics().available == 2
            made = await exchange(pool, target, GET)
            assert not made.exchange.reused
            assert await rest_of(made) == b"ok"
            made.close()

    @pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
    @pytest.mark.parametrize("end", ["FIN", "RST", "data"])
    async def test_is_not_used_again_before_that(self, end: str, *, tls: bool) -> None:
        """The next request starts in the same turn of the event loop."""

        async def act(peer: Peer) -> None:
            if end == "RST":
                peer.reset()
            elif end == "data":
                await peer.send(b"!")
                await peer.until_closed()

        async with self.after_an_exchange(act, tls=tls) as (pool, target, kept):
            kept.on_unsolicited = None  # the pool is not notified
            while kept.is_quiet():
                await checkpoint()
            made = await exchange(pool, target, GET)
            assert kept.closed
            assert not made.exchange.reused
            assert await rest_of(made) == b"ok"
            made.close()
            assert idle(pool) == 1

    @pytest.mark.parametrize("what", ["data", "end of TLS", "garbage"])
    async def test_not_used_again_if_data_is_read_with_the_response(self, what: str) -> None:
        async def go_on(peer: Peer) -> None:
            with suppress(*ENDS):
                assert isinstance(peer.stream, TLSStream)
                if what == "end of TLS":
                    await peer.stream.unwrap()
                elif what == "garbage":
                    await peer.stream.transport_stream.send(b"\x17\x03\x03\0\x20" + bytes(32))
                    await peer.until_closed()
                else:
                    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad")
                    await peer.until_closed()

        async def handle(peer: Peer) -> None:
            await peer.request()
            if server.accepted > 1:
                await peer.send(OK)
                await peer.until_closed()
            await pool_is_paused.wait()
            await peer.send(OK)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(go_on, peer)
                await all_tasks_blocked()
                both_sent.set()

        both_sent, pool_is_paused = anyio.Event(), anyio.Event()
        with anyio.fail_after(10):
            async with serving(handle, tls=server_context()) as server:
                pool = Pool(max_connections=2, ssl_context=client_context())
                target = Target("https", "127.0.0.1", server.port)
                bodies: list[bytes] = []
                async with anyio.create_task_group() as tasks:

                    async def first() -> None:
                        bodies.append(await get(pool, target))

                    tasks.start_soon(first)
                    await server.until(lambda: server.accepted == 1)
                    connection = await _watched_connection()
                    connection.pause()
                    pool_is_paused.set()
                    await both_sent.wait()
                    connection.resume()
                assert bodies == [b"ok"]
                assert connection.closed  # pyright: ignore[reportPossiblyUnboundVariable]
                assert idle(pool) == 0
                made = await exchange(pool, target, GET)
                assert not made.exchange.reused
                assert await rest_of(made) == b"ok"
                made.close()
                pool.close()

    async def test_a_closed_connection_is_not_quiet(self) -> None:
        async with self.after_an_exchange(Peer.until_closed) as (_, _, kept):
            kept.close()
            assert not kept.is_quiet()

    async def test_session_tickets_are_not_unsolicited_data(self) -> None:
        """TLS 1.3 sends them after the handshake; some servers, with the first response."""
        async with self.after_an_exchange(Peer.until_closed, tls=True) as (pool, target, kept):
            for _ in range(20):
                await checkpoint()
            assert kept.is_quiet()
            assert pool.kept(target) is kept
            pool.discard(kept)

    async def test_descriptors_beyond_the_limit_of_select(self) -> None:
        with _many_descriptors():
            async with serving(repeating()) as server:
                pool = Pool()
                target = Target("http", "127.0.0.1", server.port)
                reused: list[bool] = []
                for _ in range(2):
                    made = await exchange(pool, target, GET)
                    reused.append(made.exchange.reused)
                    await rest_of(made)
                    made.close()
                assert reused == [False, True]
                pool.close()


async def _watched_connection() -> Any:
    """Return the only connection, once it exists and is idle."""
    while (reactor := running_reactor()) is None or not reactor._watched:
        await checkpoint()
    await all_tasks_blocked()
    ((_, callback),) = reactor._watched.values()
    return callback.__self__  # type: ignore[attr-defined]


class _many_descriptors:  # noqa: N801 - a context manager
    def __enter__(self) -> None:
        import resource  # noqa: PLC0415 - not on Windows

        if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 1200:
            pytest.skip("the limit of descriptors is too low")
        self._held: list[int] = []
        while not self._held or self._held[-1] < 1030:
            self._held.append(os.open(os.devnull, os.O_RDONLY))

    def __exit__(self, *exc_info: object) -> None:
        for descriptor in self._held:
            os.close(descriptor)


@pytest.mark.usefixtures("reader_tasks")
async def test_a_connection_that_the_peer_resets_immediately() -> None:
    async def reset(peer: Peer) -> None:
        peer.reset()

    with anyio.fail_after(10):
        async with serving(reset) as server:
            pool = Pool(max_connections=1)
            target = Target("http", "127.0.0.1", server.port)
            connection = await pool.acquire(target, no_stage)
            await server.all_ended()
            pool.discard(connection)
            assert pool.statistics().available == 1
            assert open_sockets(server.port) == 0


@pytest.mark.parametrize("what", ["the reactor", "the socket"])
async def test_no_descriptor_is_free_to_watch_it(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoneLeft(_reactor.DefaultSelector):
        def __init__(self) -> None:
            if what == "the reactor":
                raise OSError(24, "Too many open files")
            super().__init__()

        def register(self, fileobj: Any, events: int, data: Any = None) -> Any:
            if events == _reactor.WRITE:  # it is connecting
                return super().register(fileobj, events, data)
            raise OSError(28, "No space left on device")

    with anyio.fail_after(10):
        async with serving(black_hole) as server:
            monkeypatch.setattr(_reactor, "DefaultSelector", NoneLeft)
            pool = Pool(max_connections=1)
            for _ in range(2):
                with pytest.raises(ConnectFailure, match=r"Too many open files|No space left"):
                    await pool.acquire(Target("http", "127.0.0.1", server.port), no_stage)
                assert pool.statistics().available == 1
                assert running_reactor() is None
                assert open_sockets(server.port) == 0
