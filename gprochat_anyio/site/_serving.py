"""Serving an application on the event loop that runs, until cancelled."""

from __future__ import annotations

import os
import socket
import ssl
import sys
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from anyio import TASK_STATUS_IGNORED, Event, create_task_group, getaddrinfo, sleep
from anyio.abc import TaskStatus
from starlette.applications import Starlette

from gprochat_anyio import Client, Fleet
from gprochat_anyio._wire.model_api import Model

from ._app import create_app
from ._hypercorn import BACKLOG, Server

UNREAD_SECONDS: Final = 60.0
"""How long a client may leave unread what it is sent, before its connection is cut (Linux)."""


async def serve(
    app_or_model: Starlette | Model | Client | Fleet | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    secret_key: str = "",
    passwords: Iterable[str] = (),
    ssl_context: ssl.SSLContext | None = None,
    until: Event | None = None,
    grace: float = 30.0,
    task_status: TaskStatus[str] = TASK_STATUS_IGNORED,
) -> None:
    """Serve a site until cancelled; `url = await tg.start(serve, ...)` gives its URL.

    Cancellation cuts open replies off, where their clients see an interrupted reply, closes every
    connection and the listening socket, and ends within about a second whatever the clients do.
    Before that, a client that reads nothing of its reply for a minute is cut off, on Linux.

    :param app_or_model: An app of `create_app`, or the model of a new one, which may be a `Client`
        or a `Fleet`. None is `offline_model`.
    :param host: the address to listen on. Anything but loopback needs a password.
    :param port: 0 lets the system choose
    :param secret_key: as for `create_app`; an app that is given has its own already
    :param passwords: likewise
    :param ssl_context: of a server, with its certificate: makes the site speak TLS
    :param until: once set, no more connections are accepted, what is running may end, and then
        this returns
    :param grace: seconds that what is running may take from then on; after that it is cut off
    :raises ValueError: for another address than loopback without a password, for a secret key or
        passwords beside an app, for a grace below 0, and as `create_app`
    :raises OSError: when the address can not be listened on
    :raises Exception: from Hypercorn, when the app's lifespan fails to start
    """
    if not isinstance(app_or_model, Starlette):
        app = create_app(app_or_model, secret_key=secret_key, passwords=passwords)
    elif secret_key or passwords:
        raise ValueError("the app has its own secret key and passwords; give them to create_app")
    else:
        app = app_or_model
    if not grace >= 0:
        raise ValueError("grace is in seconds, and at least 0")
    with await _listen(host, port, protected=getattr(app.state, "protected", False)) as listener:
        server = Server(app, listener, ssl_context)
        async with create_task_group() as tg:
            tg.start_soon(server.run, tg.cancel_scope)
            try:
                await server.ready.wait()
                task_status.started(_url(listener, "http" if ssl_context is None else "https"))
                await (until or Event()).wait()
                server.drain(grace)
                await sleep(grace)
            finally:
                server.stop()
        if server.failure is not None:
            raise server.failure


async def _listen(host: str, port: int, *, protected: bool) -> socket.socket:
    found = await getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    if not protected and not ip_address(address[0]).is_loopback:
        raise ValueError(
            f"others could reach the site on {host} and use its model; give passwords, or listen "
            "on 127.0.0.1"
        )
    listener = socket.socket(family, kind, protocol)  # asyncio looks for TCP to send at once
    try:
        # Elsewhere than on POSIX it would let two servers share the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
        # Connections have it from their listener. The kernel alone knows when a client reads: what
        # was written long since may still wait for it, also in a connection that is being closed.
        if sys.platform == "linux":  # pragma: no branch - others have nothing like it
            unread = round(UNREAD_SECONDS * 1000)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unread)
        listener.setblocking(False)
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _url(listener: socket.socket, scheme: str) -> str:
    host, port, *_ = listener.getsockname()
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
