"""Data takes the same path, plain or with TLS, by name or by address: the properties of each."""

from __future__ import annotations

import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import SocketAttribute
from anyio.lowlevel import checkpoint
from support.raw_site import Exchange, raw_site
from support.response_bytes import LAST_CHUNK, REPLY_HEAD, chunk
from support.scripted import reply
from support.servers import Handler, Peer, Server, client_context, server_context, serving

from gprochat_anyio import Client

WAYS = pytest.mark.parametrize(
    ("host", "tls"),
    [("127.0.0.1", False), ("127.0.0.1", True), ("localhost", False), ("localhost", True)],
    ids=["address", "address-tls", "name", "name-tls"],
)

READ = 64 * 1024


@asynccontextmanager
async def connected(
    handler: Handler, host: str, *, tls: bool
) -> AsyncIterator[tuple[Client, Server]]:
    """Yield a client that has the server's name or address, for this handler."""
    with anyio.fail_after(10):
        async with serving(handler, tls=server_context() if tls else None) as server:
            url = f"{'https' if tls else 'http'}://{host}:{server.port}"
            context = client_context() if tls else None
            async with Client(url, ssl_context=context, trust_env=False) as client:
                yield client, server


@WAYS
async def test_receive_is_always_a_checkpoint(host: str, *, tls: bool) -> None:
    """Even if text is available, other tasks run, and cancellations are delivered."""
    records = 300
    all_sent, all_received = anyio.Event(), anyio.Event()

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(REPLY_HEAD + chunk(b"first"))
        for _ in range(records):
            await peer.send(chunk(b"text"))
        all_sent.set()
        await all_received.wait()
        await peer.send(LAST_CHUNK)
        await peer.until_closed()

    async with connected(handle, host, tls=tls) as (client, _):
        async with client.stream("hi") as chunks, anyio.create_task_group() as tasks:
            turns = calls = 0

            async def count_turns() -> None:
                nonlocal turns
                while not all_received.is_set():
                    turns += 1
                    await checkpoint()

            await all_sent.wait()
            tasks.start_soon(count_turns)
            while len(chunks.text) < len("first") + len("text") * records:
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await chunks.receive()
                assert scope.cancelled_caught
                await chunks.receive()
                calls += 2
            all_received.set()
            assert turns >= calls - 1
            assert await chunks.read() == ""
            assert chunks.text == "first" + "text" * records


@WAYS
async def test_nothing_is_read_ahead_of_the_consumer(host: str, *, tls: bool) -> None:
    """The site can send only as much as the kernel buffers, and two reads of 64 KiB."""
    sent = 0
    block = chunk(b"x" * READ)

    async def handle(peer: Peer) -> None:
        nonlocal sent
        raw = peer.stream.extra(SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, READ)
        await peer.request()
        await peer.send(REPLY_HEAD + chunk(b"first"))
        while True:
            await peer.send(block)
            sent += len(block)

    async with connected(handle, host, tls=tls) as (client, _):
        async with client.stream("hi"):
            before = -1
            while sent > before:  # it is blocked once no more data goes out
                before = sent
                for _ in range(200):
                    await checkpoint()
            assert sent < 1_500_000


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_flood_is_not_read_ahead(host: str) -> None:
    """A thread fills the kernel's buffers continuously."""
    block = b"%x\r\n%b\r\n" % (READ, b"x" * READ) * 16
    sent = 0

    def flood(exchange: Exchange) -> None:
        nonlocal sent
        exchange.send(REPLY_HEAD)
        while True:
            exchange.send(block)
            sent += len(block)

    with raw_site(flood) as site, anyio.fail_after(10):
        url = site.url.replace("127.0.0.1", host)
        async with Client(url, trust_env=False) as client:
            tracemalloc.start()
            try:
                async with client.stream("hi") as chunks:
                    for _ in range(3):  # each time with full kernel buffers
                        await chunks.receive()
                        before = -1
                        while sent > before:
                            before = sent
                            for _ in range(200):
                                await checkpoint()
                    assert tracemalloc.get_traced_memory()[0] < 8 * READ
            finally:
                tracemalloc.stop()


@WAYS
async def test_unsolicited_data_is_not_the_next_response(host: str, *, tls: bool) -> None:
    """Its connection is closed immediately, rather than at the next request."""
    replied = anyio.Event()

    async def handle(peer: Peer) -> None:
        await peer.request()
        if not replied.is_set():
            await peer.send(reply("mine"))
            await replied.wait()
            await peer.send(reply("unsolicited"))
            await peer.until_closed()
        else:
            await peer.send(reply("mine, too"))

    async with connected(handle, host, tls=tls) as (client, server):
        assert (await client.ask("hi")).text == "mine"
        replied.set()
        await server.until(lambda: server.ended == 1)
        assert (await client.ask("hi")).text == "mine, too"
        assert server.accepted == 2


@WAYS
async def test_unsolicited_data_after_a_response(host: str, *, tls: bool) -> None:
    """It arrives with the response, in one write that fills a read exactly."""
    asked = 0

    async def handle(peer: Peer) -> None:
        nonlocal asked
        await peer.request()
        asked += 1
        most = reply(f"{asked}", "x" * (READ - 999))
        whole = reply(f"{asked}", "x" * (READ - 999 + READ - len(most)))
        assert len(whole) == READ
        await peer.send(whole + reply("unsolicited"))
        await peer.until_closed()

    async with connected(handle, host, tls=tls) as (client, server):
        for number in (1, 2, 3):
            assert (await client.ask("hi")).text.rstrip("x") == f"{number}"
        assert server.accepted == 3
