"""Cancellation anywhere: the socket is closed and the slot free before the cancellation leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.proxies import proxying
from support.reactors import running_reactor
from support.servers import (
    CHUNKED,
    LAST_CHUNK,
    OK,
    Peer,
    black_hole,
    client_context,
    open_sockets,
    repeating,
    server_context,
    serving,
)

from gprochat_anyio.testing import Injection, cancelled, injections
from gprochat_anyio.transport import _pool
from gprochat_anyio.transport._connecting import connect
from gprochat_anyio.transport._pool import Pool
from gprochat_anyio.transport._response_buffer import ResponseBuffer
from gprochat_anyio.transport._target import Proxy, Target

from .cancelling import at_every_suspension, bounded
from .exchanges import GET, POST, exchange, get

pytestmark = pytest.mark.usefixtures("no_garbage_collector", "reader_tasks")


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_an_exchange_from_the_connection_to_its_end(*, tls: bool) -> None:
    async with bounded(), serving(repeating(), tls=server_context() if tls else None) as server:
        target = Target("https" if tls else "http", "127.0.0.1", server.port)
        suspensions = await at_every_suspension(target, get, server.port)
        await server.all_ended()
    assert suspensions >= 2


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_an_exchange_on_an_idle_connection(*, tls: bool) -> None:
    async with bounded(), serving(repeating(), tls=server_context() if tls else None) as server:
        target = Target("https" if tls else "http", "127.0.0.1", server.port)
        await at_every_suspension(target, get, server.port, prepare=get)
        await server.all_ended()


@pytest.mark.slow
async def test_an_exchange_on_an_idle_connection_that_the_server_closed() -> None:
    ends: list[anyio.Event] = []

    async def handle(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(OK)
            if not ends[-1].is_set():
                await ends[-1].wait()
                return

    async def prepare(pool: Pool, target: Target) -> None:
        ends.append(anyio.Event())
        await get(pool, target)
        (connection,) = pool.statistics().idle
        connection.on_unsolicited = None  # as if the end arrived with the next request
        ends[-1].set()
        while connection.is_quiet():
            await checkpoint()

    async with bounded(), serving(handle) as server:
        target = Target("http", "127.0.0.1", server.port)
        await at_every_suspension(target, get, server.port, prepare=prepare)
        await server.all_ended()


@pytest.mark.slow
async def test_an_exchange_that_closes_another_targets_connection() -> None:
    async with bounded(), serving(repeating()) as server, serving(repeating()) as other:
        target = Target("http", "127.0.0.1", server.port)
        await at_every_suspension(
            target,
            get,
            server.port,
            other.port,
            prepare=lambda pool, _: get(pool, Target("http", "127.0.0.1", other.port)),
        )
        await server.all_ended()
        await other.all_ended()


@pytest.mark.slow
async def test_a_reply_in_many_reads() -> None:
    async def handle(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(CHUNKED)
            for part in (b"1\r\no", b"\r\n1\r\nk\r\n", LAST_CHUNK):
                await checkpoint()
                await peer.send(part)

    async with bounded(), serving(handle) as server:
        target = Target("http", "127.0.0.1", server.port)
        await at_every_suspension(target, get, server.port)
        await server.all_ended()


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_large_upload(*, tls: bool) -> None:
    body = b"x" * 300_000

    async def upload(pool: Pool, target: Target) -> bytes:
        return await get(pool, target, POST % len(body), body)

    async with bounded(), serving(repeating(), tls=server_context() if tls else None) as server:
        target = Target("https" if tls else "http", "127.0.0.1", server.port)
        await at_every_suspension(target, upload, server.port)
        await server.all_ended()


@pytest.mark.slow
async def test_an_upload_by_an_iterator() -> None:
    ended = 0

    async def parts() -> AsyncGenerator[bytes]:
        nonlocal ended
        try:
            for _ in range(5):
                await checkpoint()
                yield b"x" * 1000
        finally:
            ended += 1

    async def upload(pool: Pool, target: Target) -> bytes:
        async with aclosing(parts()) as body:
            return await get(pool, target, POST % 5000, body)

    async with bounded(), serving(repeating()) as server:
        target = Target("http", "127.0.0.1", server.port)
        await at_every_suspension(target, upload, server.port)
        await server.all_ended()
    assert ended


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["http", "https", "socks5", "forwarded"])
async def test_through_a_proxy(kind: str) -> None:
    tls = None if kind == "forwarded" else server_context()
    under_tls = server_context() if kind == "https" else None
    proxied = proxying("socks5" if kind == "socks5" else "http", tls=under_tls)
    async with bounded(), serving(repeating(), tls=tls) as server, proxied as proxy:
        scheme = "http" if kind == "forwarded" else kind
        target = Target(
            "https" if tls else "http",
            "127.0.0.1",
            server.port,
            Proxy.from_url(f"{scheme}://127.0.0.1:{proxy.port}"),
        )

        async def through_it(pool: Pool, target: Target) -> bytes:
            place = f"http://127.0.0.1:{server.port}/" if target.forwarded_by else "/"
            return await get(pool, target, GET.replace(b"/", place.encode(), 1))

        suspensions = await at_every_suspension(target, through_it, proxy.port)
        assert proxy.server is not None
        await proxy.server.all_ended()
        await server.all_ended()
    assert suspensions >= 2


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("proxy", [None, "http", "socks5", "https"])
async def test_silent_peers(proxy: str | None, *, tls: bool) -> None:
    """Only an outer cancellation can end these waits."""

    async def until_silence(pool: Pool, target: Target) -> None:
        with anyio.move_on_after(0.02):
            await get(pool, target)

    async with bounded(), serving(black_hole) as server:
        via = None if proxy is None else Proxy.from_url(f"{proxy}://127.0.0.1:{server.port}")
        target = Target("https" if tls else "http", "127.0.0.1", server.port, via)
        await at_every_suspension(target, until_silence, server.port, works_after=False)
        await server.all_ended()


@pytest.mark.slow
@pytest.mark.parametrize("native", [False, True], ids=["scope", "native"])
async def test_in_the_moment_of_connecting(
    native: bool, monkeypatch: pytest.MonkeyPatch, anyio_backend_name: str
) -> None:
    if native and anyio_backend_name == "trio":
        pytest.skip("requires asyncio")
    cancel: Callable[[], object] = lambda: None  # noqa: E731 - until there is a task

    async def connect_and_cancel(*args: Any, **options: Any) -> Any:
        opened = await connect(*args, **options)
        cancel()
        return opened

    monkeypatch.setattr(_pool, "connect", connect_and_cancel)
    async with bounded(), serving(repeating()) as server:
        target = Target("http", "127.0.0.1", server.port)
        pool = Pool(max_connections=1)
        if native:
            task = asyncio.create_task(get(pool, target))
            cancel = task.cancel
            await asyncio.wait([task])
            assert task.cancelled()
        else:
            with anyio.CancelScope() as scope:
                cancel = scope.cancel
                await get(pool, target)
            assert scope.cancelled_caught
        assert open_sockets(server.port) == 0
        assert pool._free == 1
        await server.all_ended()


@pytest.mark.slow
async def test_closing_does_not_wait_for_the_peer_and_ignores_cancellation() -> None:
    async def stall(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"2\r\nok\r\n")
        await anyio.sleep_forever()

    async def read_and_close(made: ResponseBuffer) -> None:
        try:
            await made.read()
        finally:
            made.close()
            assert open_sockets(server.port) == 0
            assert pool.statistics().available == 1

    async with bounded(), serving(stall, tls=server_context()) as server:
        target = Target("https", "127.0.0.1", server.port)
        pool = Pool(max_connections=1, ssl_context=client_context())
        for native in sorted({native for _, native in injections()}):
            made = await exchange(pool, target)
            assert await made.read() == b"ok"
            end = await cancelled(Injection(1, "before", native), partial(read_and_close, made))
            assert end == "cancelled"
            assert running_reactor() is None
