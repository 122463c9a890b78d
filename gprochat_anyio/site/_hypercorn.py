"""Hypercorn for one application and one listening socket, with an end that comes at once."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import sys
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import trio
from anyio import CancelScope, Event
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config, Sockets
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ._hypercorn_connection import serve_on_asyncio, serve_on_trio

BACKLOG: Final = 1024
"""How many connections may wait to be accepted."""

KEEP_ALIVE_SECONDS: Final = 5
"""How long an idle connection is kept, as on the original site."""

_DESCRIPTORS: Final = Path("/dev/fd")
_GRACE_SECONDS: Final = 1.0
_KEEP_ALIVE_HEADERS: Final = (
    (b"connection", b"keep-alive"),
    (b"keep-alive", f"timeout={KEEP_ALIVE_SECONDS}".encode()),
)


class Server:
    """Serves `app` on `listener`, which stays its owner's to close.

    `ready` is set once connections are accepted; `failure` is what went wrong, if anything.

    :param ssl_context: makes it speak TLS
    """

    def __init__(
        self, app: ASGIApp, listener: socket.socket, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self.ready = Event()
        self.failure: Exception | None = None
        self._app = app
        self._config = _HypercornConfig(listener, ssl_context)
        self._address = listener.getsockname()
        self._stopping = Event()
        self._cutting = False
        self._startup = CancelScope()
        self._open: set[CancelScope] = set()

    async def run(self, parent: CancelScope) -> None:
        """Serve until `stop`, then cancel `parent`; cancellation does nothing here.

        Hypercorn leaks when it is cancelled, so it is always asked to stop instead.
        """
        run = serve_on_trio if trio.lowlevel.in_trio_task() else serve_on_asyncio
        call: Any = self._call  # the types of Starlette and Hypercorn do not meet
        app = ASGIWrapper(call)
        with CancelScope(shield=True):
            try:
                await run(app, self._config, shutdown_trigger=self._until_stopped)
            except Exception as error:  # noqa: BLE001 - raised by serve, without its groups
                self.failure = _bare(error)
            finally:
                parent.cancel()

    def drain(self, grace: float) -> None:
        """Accept no more connections, close idle ones, and let `run` end with the last request.

        :param grace: seconds for that, after which the caller has to `stop` it
        """
        self._config.graceful_timeout = grace + _GRACE_SECONDS
        self._stopping.set()

    def stop(self) -> None:
        """Cut everything off that is open, and let `run` end."""
        self._cutting = True
        self._stopping.set()
        if not self.ready.is_set():
            self._startup.cancel()
        for scope in self._open:
            scope.cancel()
        _hang_up(self._address)

    async def _until_stopped(self) -> None:
        # Hypercorn starts to wait for its end once it has begun to accept connections.
        self.ready.set()
        await self._stopping.wait()

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            with self._startup:
                await self._app(scope, receive, send)
            return

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_KEEP_ALIVE_HEADERS]}
            await send(message)

        with CancelScope() as cut:
            self._open.add(cut)
            if self._cutting:
                cut.cancel()
            try:
                await self._app(scope, receive, send_on)
            finally:
                self._open.discard(cut)


class _HypercornConfig(Config):
    def __init__(self, listener: socket.socket, ssl_context: ssl.SSLContext | None) -> None:
        self._listener = listener
        self._ssl_context = ssl_context
        self.backlog = BACKLOG
        self.errorlog = logging.getLogger("gprochat_anyio.site")
        self.graceful_timeout = _GRACE_SECONDS
        self.include_server_header = False
        self.keep_alive_max_requests = sys.maxsize
        self.keep_alive_timeout = KEEP_ALIVE_SECONDS
        self.shutdown_timeout = _GRACE_SECONDS

    def create_sockets(self) -> Sockets:
        ours = [self._listener]
        secure, insecure = (ours, []) if self.ssl_enabled else ([], ours)
        return Sockets(secure_sockets=secure, insecure_sockets=insecure, quic_sockets=[])

    @property
    def ssl_enabled(self) -> bool:
        return self._ssl_context is not None

    def create_ssl_context(self) -> ssl.SSLContext | None:
        return self._ssl_context


def _hang_up(address: Any) -> None:
    """Shut down every connection that was accepted on `address`.

    A client that has stopped reading would otherwise hold up the end of serving for ever:
    Hypercorn shields its writes on Trio, asyncio's `Server.wait_closed` waits for every
    connection from Python 3.12 on, and neither tells us its sockets. So they are looked up by
    their address among those of this process. Windows has no such list; there a client like that
    can delay the end.
    """
    host, port, *_ = address
    everywhere = ip_address(host).is_unspecified
    with suppress(FileNotFoundError):
        for entry in _DESCRIPTORS.iterdir():
            with suppress(OSError), _socket(int(entry.name)) as connection:
                connection.getpeername()  # not the listening socket, which has none
                own = connection.getsockname()
                ours = own[1:2] == (port,) and (everywhere or own[0] == host)
                if ours and connection.type == socket.SOCK_STREAM:
                    connection.shutdown(socket.SHUT_RDWR)


def _socket(fd: int) -> socket.socket:
    """The socket behind a descriptor, by one of its own that other threads can not close.

    :raises OSError: when there is none
    """
    copy = os.dup(fd)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise


def _bare(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
