"""Two connected ends: a connection, and the plain stream of its peer."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from support.reactors import running_reactor
from support.servers import Peer, client_context, open_sockets, server_context, serving

from gprochat_anyio.transport._connecting import connect
from gprochat_anyio.transport._reactor import current_reactor
from gprochat_anyio.transport._socket_connection import SocketConnection
from gprochat_anyio.transport._target import Target

from .receivers import Listening


class Pair:
    """The two ends of a connection, and our end's receiver."""

    def __init__(self, connection: SocketConnection, peer: Peer, listening: Listening) -> None:
        self.connection = connection
        self.peer = peer
        self.listening = listening


@asynccontextmanager
async def pair(
    *, tls: bool = False, context: ssl.SSLContext | None = None, greeting: bytes = b""
) -> AsyncIterator[Pair]:
    """Yield a connection, which is closed at the end of the block.

    :param greeting: Data that the server sends as soon as possible.
    """

    async def handle(peer: Peer) -> None:
        if greeting:
            await peer.send(greeting)
        peers.append(peer)
        accepted.set()
        await anyio.sleep_forever()

    peers: list[Peer] = []
    accepted = anyio.Event()
    with anyio.fail_after(10):
        async with serving(handle, tls=server_context() if tls else None) as server:
            target = Target("https" if tls else "http", "127.0.0.1", server.port)
            opened = await connect(target, ssl_context=context or client_context(), uds=None)
            connection = SocketConnection(opened.socket, opened.layers, target, current_reactor())
            listening = connection.receiver = Listening()
            try:
                await accepted.wait()
                yield Pair(connection, peers[0], listening)
            finally:
                connection.close()
            assert running_reactor() is None
            assert open_sockets(server.port) == 0


def unread(connection: SocketConnection) -> bytes:
    """Return arrived data without reading it."""
    try:
        return connection._socket.recv(100, socket.MSG_PEEK)
    except BlockingIOError:
        return b""


async def until_sending(connection: SocketConnection) -> None:
    """Wait until it waits for room, and no longer: a server in the same event loop reads
    everything."""
    while not connection.is_sending:
        await checkpoint()


def always(data: bytes) -> Any:
    """Return a replacement of a socket's `recv`."""
    return lambda _: data
