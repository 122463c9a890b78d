"""Connections for a reactor to watch, over socket pairs and without a server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from support.servers import repeating, serving

from gprochat_anyio.transport._pool import Pool
from gprochat_anyio.transport._reactor import current_reactor
from gprochat_anyio.transport._socket_connection import SocketConnection
from gprochat_anyio.transport._target import Target

from .exchanges import get
from .receivers import Listening

HERE = Target("http", "site.test", 80)


class Watched:
    """A connection over one end of a socket pair."""

    def __init__(self) -> None:
        ours, self.other = socket.socketpair()
        ours.setblocking(False)
        self.connection = SocketConnection(ours, (), HERE, current_reactor())
        self.listening = self.connection.receiver = Listening()

    def close(self) -> None:
        self.connection.close()
        self.other.close()


@contextmanager
def watched() -> Iterator[Watched]:
    made = Watched()
    try:
        yield made
    finally:
        made.close()


class Never:
    """An operation whose deadline is far away."""

    def due(self, now: float) -> float:
        return now + 1000

    def look(self) -> None:
        pass

    def expire(self) -> None:
        raise AssertionError


async def get_once() -> None:
    async with serving(repeating()) as server:
        pool = Pool()
        assert await get(pool, Target("http", "127.0.0.1", server.port)) == b"ok"
        pool.close()
        await server.all_ended()
