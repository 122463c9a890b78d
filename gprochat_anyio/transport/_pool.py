"""Connections: a bound on how many there are, and those kept alive for the next request.

No operation's cost grows with the number of connections or of requests that wait.
"""

from __future__ import annotations

import select
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

import anyio
from anyio.abc import ByteStream

from ._connecting import close_now, connect
from ._sockets import socket_of
from ._stages import OnStage
from ._target import Target

if TYPE_CHECKING:
    import ssl

KEEP_ALIVE = 5.0
"""Seconds that a site keeps an idle connection when it does not say."""

_MARGIN = 0.8  # how much of the site's own limit is used: the rest is for the way there


class Connection:
    """A connection to an origin, and what it needs for being used again."""

    __slots__ = ("_fileno", "expires", "reused", "stream", "target")

    def __init__(self, stream: ByteStream, target: Target) -> None:
        self.stream = stream
        self.target = target
        self.reused = False
        self.expires = 0.0
        """When it is given up, by the event loop's clock."""
        raw_socket = socket_of(stream)
        self._fileno: Callable[[], int] | None = None if raw_socket is None else raw_socket.fileno

    def is_quiet(self) -> bool:
        """Whether the idle connection is still open and silent: neither end nor data has come."""
        if self._fileno is None:
            return True
        fileno = self._fileno()
        if fileno < 0 or _readable(fileno):
            return False
        if not hasattr(self.stream, "transport_stream"):
            return True
        from ._tls import has_unread  # noqa: PLC0415 - loaded already, by the handshake

        return not has_unread(self.stream)


def _readable(fileno: int) -> bool:
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([fileno], [], [], 0)[0])
    poll = select.poll()
    poll.register(fileno, select.POLLIN)
    return bool(poll.poll(0))


class _Waiter:
    """A task that waits for a slot, or for a connection that already has one."""

    __slots__ = ("connection", "event", "granted", "target")

    def __init__(self, target: Target) -> None:
        self.target = target
        self.event = anyio.Event()
        self.granted = False
        self.connection: Connection | None = None


class PoolStatistics(NamedTuple):
    """What a pool holds."""

    available: float
    """Slots that the next requests can have at once; infinite without a bound."""
    idle: tuple[ByteStream, ...]
    """The connections that are kept for them."""
    waiting: int
    """How many requests wait for a slot."""


class Pool:
    """At most `max_connections` connections, idle ones included; first come, first served.

    :param max_connections: None is no bound
    :param uds: the path of a Unix socket that all connections go to
    """

    def __init__(
        self,
        *,
        max_connections: int | None = None,
        ssl_context: ssl.SSLContext | None = None,
        uds: str | None = None,
    ) -> None:
        self._free = float("inf") if max_connections is None else max_connections
        self._ssl_context = ssl_context
        self._uds = uds
        self.connect: Callable[..., Awaitable[ByteStream]] = connect
        """What makes the connections."""
        self._idle: dict[Target, deque[Connection]] = {}
        self._waiting: OrderedDict[_Waiter, None] = OrderedDict()
        self._closed = False

    async def acquire(
        self, target: Target, on_stage: OnStage, *, fresh: bool = False
    ) -> Connection:
        """A connection to the target: the one that was used last, if it is still good.

        Waits for a slot if there is none, in no stage; then, in the stage "connect", for a new
        connection. A cancellation in either leaves the slot free again.

        :param fresh: whether none that was used before will do
        :raises ConnectFailure: if none can be made
        """
        await self._close_expired(target)
        while not fresh and (connection := self._pop_idle(target, last=True)) is not None:
            if self._is_good(connection):
                connection.reused = True
                return connection
            await self.discard(connection)
        given = await self._slot(target)
        if given is not None:
            if given.target == target and not fresh and self._is_good(given):
                given.reused = True
                return given
            await self._close_keeping_slot(given)
        try:
            on_stage("connect")
            stream = await self.connect(target, ssl_context=self._ssl_context, uds=self._uds)
        except BaseException:
            self._free_slot()
            raise
        return Connection(stream, target)

    async def give_back(self, connection: Connection, keep_alive: float) -> None:
        """Take back a connection whose exchange is complete.

        :param keep_alive: for how many seconds the site keeps it
        """
        if self._closed or keep_alive <= 0:
            await self.discard(connection)
            return
        connection.expires = anyio.current_time() + keep_alive * _MARGIN
        self._put_back(connection)

    async def discard(self, connection: Connection) -> None:
        """Close a connection at once, and free its slot."""
        try:
            await close_now(connection.stream)
        finally:
            self._free_slot()

    async def aclose(self) -> None:
        """Close the idle connections; those in use are closed when they are given back."""
        self._closed = True
        await self.close_idle()

    async def close_idle(self) -> None:
        """Close the idle connections."""
        while self._idle:
            connection = self._pop_idle(next(iter(self._idle)), last=True)
            assert connection is not None
            await self.discard(connection)

    def statistics(self) -> PoolStatistics:
        """What there is of connections and of requests that wait for one."""
        idle = tuple(c.stream for connections in self._idle.values() for c in connections)
        return PoolStatistics(self._free + len(idle), idle, len(self._waiting))

    async def _close_expired(self, target: Target) -> None:
        """Close two idle connections at most: one use adds one, so they can not pile up."""
        now = anyio.current_time()
        for _ in range(2):
            if target not in self._idle or self._idle[target][0].expires > now:
                return
            connection = self._pop_idle(target, last=False)
            assert connection is not None
            await self.discard(connection)

    def _pop_idle(self, target: Target, *, last: bool) -> Connection | None:
        connections = self._idle.get(target)
        if connections is None:
            return None
        connection = connections.pop() if last else connections.popleft()
        if not connections:
            del self._idle[target]
        return connection

    @staticmethod
    def _is_good(connection: Connection) -> bool:
        return connection.expires > anyio.current_time() and connection.is_quiet()

    async def _close_keeping_slot(self, connection: Connection) -> None:
        try:
            await close_now(connection.stream)
        except BaseException:
            self._free_slot()
            raise

    async def _slot(self, target: Target) -> Connection | None:
        """Wait for a slot; it may come with a connection that already has it."""
        if self._free > 0:
            self._free -= 1
            return None
        if self._idle:  # one that waits for another target, or is of no use to this request
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
                await self.discard(waiter.connection)
            else:
                self._put_back(waiter.connection)
            raise
        return waiter.connection

    def _free_slot(self) -> None:
        if not self._grant(None):
            self._free += 1

    def _put_back(self, connection: Connection) -> None:
        if not self._grant(connection):
            self._idle.setdefault(connection.target, deque()).append(connection)

    def _grant(self, connection: Connection | None) -> bool:
        if not self._waiting:
            return False
        waiter, _ = self._waiting.popitem(last=False)
        waiter.granted = True
        waiter.connection = connection
        waiter.event.set()
        return True
