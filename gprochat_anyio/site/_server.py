"""An HTTP/1.1 server for one ASGI application, on asyncio, uvloop and Trio."""

from __future__ import annotations

import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

import h11
from anyio import Event, create_task_group, current_time, sleep_forever
from anyio.abc import TaskGroup
from starlette.types import ASGIApp, Scope

from gprochat_anyio._accepting import Address, accept_connections
from gprochat_anyio.transport._loops import Signal
from gprochat_anyio.transport._reactor import Reactor, current_reactor
from gprochat_anyio.transport._target import Target

from ._asgi import CANCELS
from ._asgi_cycle import AsgiCycle
from ._connection_owner import ServerLimits
from ._lifespan import Lifespan
from ._served_connection import ServedConnection

_ASGI: Final = {"version": "3.0", "spec_version": "2.4"}


class Server:
    """A server of an application on a listening socket.

    A request is cancelled as soon as its client disconnects. A failing client or request does not
    affect other connections.

    :param listener: The listening socket. `run` closes it when it stops accepting; otherwise the
        caller does.
    :param ssl_context: The server's TLS context. `None` for plain HTTP.
    """

    reactor: Reactor
    _wake: Signal

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        limits: ServerLimits,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.limits = limits
        self.ssl_context = ssl_context
        self.draining = False
        scheme = "http" if ssl_context is None else "https"
        self.origin = Target(scheme, *listener.getsockname()[:2])
        self._app = app
        self._listener = listener
        self._lifespan = Lifespan(app)
        self._connections: set[ServedConnection] = set()
        self._all_closed = Event()
        self._received: deque[AsgiCycle] = deque()  # requests without a task yet
        self._scope: Scope = {
            "type": "http",
            "asgi": _ASGI,
            "scheme": scheme,
            "server": listener.getsockname()[:2],
            "root_path": "",
            "extensions": {CANCELS: {}},
        }

    async def run(self, ready: Callable[[], None], until: Event | None, grace: float) -> None:
        """Serve until cancelled, or until `until` is set and open requests have ended.

        Cancellation closes every connection, and cancels open requests.

        :param ready: Called once the server accepts connections.
        :param grace: Maximum time for open requests after `until` is set, in seconds.
        :raises RuntimeError: If the application's startup or shutdown fails.
        """
        async with create_task_group() as tg:
            tg.start_soon(self._lifespan.run)
            if await self._lifespan.start():
                try:
                    await self._serve(ready, until, grace)
                finally:
                    await self._lifespan.stop()
        if self._lifespan.failure is not None:
            raise self._lifespan.failure

    def start(self, cycle: AsgiCycle) -> None:
        """Run a request in a task of its own."""
        self._received.append(cycle)
        self._wake.set()

    def scope_of(self, request: h11.Request, client: Address) -> Scope:
        """Return a request's ASGI scope."""
        target, _, query = request.target.partition(b"?")
        headers = list(request.headers)
        if not target.startswith(b"/") and b"://" in target:  # the absolute form, as for a proxy
            authority, slash, path = target.partition(b"://")[2].partition(b"/")
            target = slash + path or b"/"
            headers = [(b"host", authority), *(field for field in headers if field[0] != b"host")]
        return {
            **self._scope,
            "http_version": request.http_version.decode("ascii"),
            "method": request.method.decode("ascii"),
            "path": unquote(target.decode("ascii")),
            "raw_path": target,
            "query_string": query,
            "headers": headers,
            "client": client[:2],
            "state": self._lifespan.state.copy(),
        }

    def closed(self, connection: ServedConnection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        if not self._connections:
            self._all_closed.set()

    async def _serve(self, ready: Callable[[], None], until: Event | None, grace: float) -> None:
        self.reactor = current_reactor()
        self.reactor.join()
        self._wake = self.reactor.signal()
        try:
            async with create_task_group() as requests, create_task_group() as starting:
                starting.start_soon(self._start_requests, requests)
                async with create_task_group() as accepting:
                    accepting.start_soon(accept_connections, self._listener, self._take)
                    ready()
                    await (sleep_forever() if until is None else until.wait())
                    accepting.cancel_scope.cancel()
                self._listener.close()
                requests.cancel_scope.deadline = current_time() + grace
                await self._drain()
                starting.cancel_scope.cancel()
        finally:
            for connection in tuple(self._connections):
                connection.close()
            self.reactor.leave()

    async def _start_requests(self, requests: TaskGroup) -> None:
        """Start the tasks of requests, which callbacks have received."""
        while True:
            while self._received:
                requests.start_soon(self._received.popleft().run, self._app)
            await self._wake.wait()

    async def _drain(self) -> None:
        self.draining = True
        self._all_closed = Event()
        for connection in tuple(self._connections):
            connection.drain()
        if self._connections:
            await self._all_closed.wait()

    def _take(self, accepted: socket.socket, client: Address) -> None:
        self._connections.add(ServedConnection(self, accepted, client))
