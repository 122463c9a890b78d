"""The connection pool: limits the number of connections, and keeps idle ones for reuse.

Only `acquire` waits. Every operation takes constant time, regardless of the number of connections
and waiting requests.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import anyio

from ._connecting import connect
from ._connection import Connection
from ._failures import ConnectFailure, reason_of
from ._pumped_connection import PumpedConnection
from ._reactor import current_reactor
from ._socket_connection import SocketConnection
from ._stages import OnStage
from ._target import Target
from ._wiring import in_memory

if TYPE_CHECKING:
    import ssl

KEEP_ALIVE = 5.0
"""Time for which an idle connection is kept if the site does not announce one, in seconds."""

_MARGIN = 0.8  # of the site's own limit; the rest is for the network


class _Waiter:
    """A task that waits for a slot, or for an idle connection with its slot."""

    __slots__ = ("connection", "event", "granted", "target")

    def __init__(self, target: Target) -> None:
        self.target = target
        self.event = anyio.Event()
        self.granted = False
        self.connection: Connection | None = None


class PoolStatistics(NamedTuple):
    """Statistics of a pool."""

    available: float
    """Number of requests that can start without waiting; infinite without a limit."""
    idle: tuple[Connection, ...]
    """The idle connections."""
    waiting: int
    """Number of requests that wait for a slot."""


class Pool:
    """A pool of at most `max_connections` connections, including idle ones. Requests wait in order.

    :param max_connections: Maximum number of connections. `None` for no limit.
    :param uds: The path of a Unix socket to which all connections are made.
    """

    def __init__(
        self,
        *,
        max_connections: int | None = None,
        ssl_context: ssl.SSLContext | None = None,
        uds: str | None = None,
    ) -> None:
        self.max_connections = max_connections
        self._free = inf if max_connections is None else max_connections
        self._ssl_context = ssl_context
        self._uds = uds
        self._idle: dict[Target, OrderedDict[Connection, None]] = {}
        self._waiting: OrderedDict[_Waiter, None] = OrderedDict()
        self._closed = False
        self.wrap: Callable[[Connection], Connection] | None = None
        """Wraps each new connection, to observe its traffic."""

    def kept(self, target: Target) -> Connection | None:
        """Return the most recently used idle connection to the target, if it is still usable."""
        self._close_expired(target)
        while (connection := self._pop_idle(target, last=True)) is not None:
            if self._is_good(connection):
                connection.reused = True
                return connection
            self.discard(connection)
        return None

    async def acquire(
        self, target: Target, on_stage: OnStage, *, fresh: bool = False
    ) -> Connection:
        """Return a usable idle connection to the target, or a new one.

        This waits for a free slot, before any stage begins, and then connects in the stage
        "connect". Cancellation frees the slot.

        :param fresh: Do not reuse an idle connection.
        :raises ConnectFailure: If connecting fails.
        """
        if not fresh and (connection := self.kept(target)) is not None:
            return connection
        given = await self._slot(target)
        if given is not None and given.target == target and not fresh and self._is_good(given):
            given.reused = True
            return given
        try:
            if given is not None:
                given.close()
            on_stage("connect")
            connection = await self._connect(target)
            return connection if self.wrap is None else self.wrap(connection)
        except BaseException:
            self._free_slot()
            raise

    def give_back(self, connection: Connection, keep_alive: float) -> None:
        """Return a connection to the pool after a complete exchange.

        :param keep_alive: The time for which the site keeps the idle connection, in seconds.
        """
        if self._closed or keep_alive <= 0:
            self.discard(connection)
            return
        connection.expires = connection.reactor.now + keep_alive * _MARGIN
        self._put_back(connection)

    def discard(self, connection: Connection) -> None:
        """Close a connection immediately, and free its slot."""
        try:
            connection.close()
        finally:
            self._free_slot()

    def close(self) -> None:
        """Close the idle connections. Connections in use are closed when they are returned."""
        self._closed = True
        self.close_idle()

    def close_idle(self) -> None:
        """Close the idle connections."""
        while self._idle:
            connection = self._pop_idle(next(iter(self._idle)), last=True)
            assert connection is not None
            self.discard(connection)

    def statistics(self) -> PoolStatistics:
        """Return the numbers of free slots and waiting requests, and the idle connections."""
        idle = tuple(c for connections in self._idle.values() for c in connections)
        return PoolStatistics(self._free + len(idle), idle, len(self._waiting))

    async def _connect(self, target: Target) -> Connection:
        if in_memory:
            site = in_memory.get(f"{target.scheme}://{target.authority}")
            if site is not None:
                return PumpedConnection(await site(), target, current_reactor())
        try:
            reactor = current_reactor()
            reactor.join()
            try:
                opened = await connect(target, ssl_context=self._ssl_context, uds=self._uds)
                return SocketConnection(opened.socket, opened.layers, target, reactor)
            finally:
                reactor.leave()
        except OSError as error:  # the system has run out of descriptors or memory
            reason = reason_of(error)
        raise ConnectFailure(f"could not connect to {target.authority}: {reason}")

    def _close_expired(self, target: Target) -> None:
        """Close at most two expired connections. Each use adds at most one, so they cannot pile
        up."""
        for _ in range(2):
            if target not in self._idle:
                return
            first = next(iter(self._idle[target]))
            if first.expires > first.reactor.clock():
                return
            self._forget(first)

    def _pop_idle(self, target: Target, *, last: bool) -> Connection | None:
        connections = self._idle.get(target)
        if connections is None:
            return None
        connection, _ = connections.popitem(last=last)
        connection.on_unsolicited = None
        if not connections:
            del self._idle[target]
        return connection

    def _forget(self, connection: Connection) -> None:
        """Close an idle connection that has expired, or on which the site has closed or sent
        data."""
        connections = self._idle[connection.target]
        del connections[connection]
        if not connections:
            del self._idle[connection.target]
        self.discard(connection)

    @staticmethod
    def _is_good(connection: Connection) -> bool:
        return connection.expires > connection.reactor.clock() and connection.is_quiet()

    async def _slot(self, target: Target) -> Connection | None:
        """Wait for a slot. Return the idle connection that it belongs to, if any."""
        if self._free > 0:
            self._free -= 1
            return None
        if self._idle:  # to another target, or not usable for this request
            return self._pop_idle(next(iter(self._idle)), last=False)
        waiter = _Waiter(target)
        self._waiting[waiter] = None
        try:
            await waiter.event.wait()
        except BaseException:
            if not waiter.granted:
                del self._waiting[waiter]
            elif waiter.connection is None:
                self._free_slot()
            elif self._closed:
                self.discard(waiter.connection)
            else:
                self._put_back(waiter.connection)
            raise
        return waiter.connection

    def _free_slot(self) -> None:
        if not self._grant(None):
            self._free += 1

    def _put_back(self, connection: Connection) -> None:
        if not self._grant(connection):
            connection.on_unsolicited = self._forget
            self._idle.setdefault(connection.target, OrderedDict())[connection] = None

    def _grant(self, connection: Connection | None) -> bool:
        if not self._waiting:
            return False
        waiter, _ = self._waiting.popitem(last=False)
        waiter.granted = True
        waiter.connection = connection
        waiter.event.set()
        return True
