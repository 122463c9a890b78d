"""The client never blocks the event loop, over real sockets and with TLS."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.blocking import no_blocking
from support.response_bytes import LAST_CHUNK, REPLY_HEAD, answer, chunk
from support.servers import Peer, authority, server_context, serving

from gprochat_anyio import Client, fan_out, gather, race
from gprochat_anyio.batch import run_batch
from gprochat_anyio.transport import _tls


async def site(peer: Peer) -> None:
    while True:
        if (await peer.request()).place == "/api/auth":
            await peer.send(answer(200, b'{"code":0}', {}))
            continue
        await peer.send(REPLY_HEAD + chunk(b"one"))
        for _ in range(4):
            await anyio.lowlevel.checkpoint()
            await peer.send(chunk(b"one"))
        await peer.send(LAST_CHUNK)


@asynccontextmanager
async def client_of(
    *, tls: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Client]:
    """Return a client of a host name, which needs a lookup, with the default TLS context."""
    authority().cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    _tls.default_ssl_context.cache_clear()
    try:
        async with serving(site, tls=server_context() if tls else None) as server:
            url = f"{'https' if tls else 'http'}://localhost:{server.port}"
            async with Client(url) as client:
                with anyio.fail_after(20):
                    yield client
    finally:
        _tls.default_ssl_context.cache_clear()


async def stream(client: Client) -> None:
    async with client.stream("hi") as chunks:
        assert await chunks.read() == "one" * 5


async def stream_to(client: Client) -> None:
    send, receive = anyio.create_memory_object_stream[str](100)
    with receive:
        await client.stream_to("hi", send)


async def ask_many(client: Client) -> None:
    async with fan_out(client, ["hi"] * 5, max_at_once=2) as events:
        async for _ in events:
            pass


async def raced(client: Client) -> None:
    async with race(client, "hi") as chunks:
        await chunks.read()


OPERATIONS: list[Callable[[Client], Any]] = [
    lambda client: client.ask("hi"),
    stream,
    stream_to,
    ask_many,
    lambda client: gather(client, ["hi"] * 3),
    raced,
    lambda client: client.check_password(),
]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    "operation", OPERATIONS, ids=["ask", "stream", "stream_to", "fan_out", "gather", "race", "auth"]
)
async def test_the_client(
    operation: Callable[[Client], Any], tls: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with client_of(tls=tls, monkeypatch=monkeypatch, tmp_path=tmp_path) as client:
        with no_blocking():
            await operation(client)
            await operation(client)  # on an idle connection


async def test_a_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("one\ntwo\n")
    async with client_of(tls=False, monkeypatch=monkeypatch, tmp_path=tmp_path) as client:
        with no_blocking():
            assert (await run_batch(client, source, tmp_path / "out")).complete


async def test_authorities_are_loaded_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Loading them does block, for 20 ms, once in a process."""
    made = 0
    create = ssl.create_default_context

    def counting(**kwargs: Any) -> ssl.SSLContext:
        nonlocal made
        made += 1
        return create(**kwargs)

    monkeypatch.setattr(ssl, "create_default_context", counting)
    async with client_of(tls=True, monkeypatch=monkeypatch, tmp_path=tmp_path) as client:
        await gather(client, ["hi"] * 20, max_at_once=20)
        async with Client(client.url) as another:
            await another.ask("hi")
    assert made == 1


def _connect() -> None:
    with socket.socket() as sock:
        sock.settimeout(None)
        sock.connect_ex(("127.0.0.1", 9))


@pytest.mark.parametrize(
    "blocks",
    [
        lambda: Path(__file__).read_bytes(),
        lambda: socket.getaddrinfo("localhost", 80),
        lambda: subprocess.Popen([sys.executable, "-c", ""]).wait(),
        _connect,
        lambda: time.sleep(0),
    ],
    ids=["open", "lookup", "process", "connect", "sleep"],
)
def test_blocking_calls_are_detected(blocks: Callable[[], object]) -> None:
    with pytest.raises(AssertionError, match="the event loop was blocked"):
        with no_blocking():
            blocks()
    blocks()


async def test_worker_threads_may_block() -> None:
    with no_blocking():
        await anyio.to_thread.run_sync(Path(__file__).read_bytes)
