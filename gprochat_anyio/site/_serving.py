"""Serving a site on the current event loop."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from anyio import TASK_STATUS_IGNORED, Event, getaddrinfo
from anyio.abc import TaskStatus
from starlette.applications import Starlette

from gprochat_anyio import Client, Fleet
from gprochat_anyio._accepting import listen, url_of
from gprochat_anyio._wire.model_api import Model

from ._app import create_app
from ._connection_owner import ServerLimits
from ._server import Server

LIMITS: Final = ServerLimits()
"""Limits on clients' use of their connections."""


async def serve(
    app_or_model: Starlette | Model | Client | Fleet | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    secret_key: str = "",
    passwords: Iterable[str] = (),
    hosts: Iterable[str] = (),
    ssl_context: ssl.SSLContext | None = None,
    until: Event | None = None,
    grace: float = 30.0,
    task_status: TaskStatus[str] = TASK_STATUS_IGNORED,
) -> None:
    """Serve a site until cancelled. `url = await tg.start(serve, ...)` returns its URL.

    Cancellation closes the listening socket and every connection, within about one second. Clients
    of open replies see interrupted replies. A client that reads nothing of its reply for one minute
    is disconnected.

    :param app_or_model: An application from `create_app`, or the model of a new one, which may be a
        `Client` or a `Fleet`. `None` for `offline_model`.
    :param host: The address to listen on. Addresses other than loopback require a password.
    :param port: The port to listen on. 0 lets the system choose.
    :param secret_key: The secret key for `create_app`. Not allowed with an application.
    :param passwords: The passwords for `create_app`. Not allowed with an application.
    :param hosts: The host names for `create_app`. Not allowed with an application.
    :param ssl_context: The server's TLS context, with its certificate. `None` for plain HTTP.
    :param until: An event that ends serving. Once it is set, the site accepts no connections, open
        requests may finish, and this function returns.
    :param grace: Maximum time for open requests after `until` is set, in seconds. Then they are cut
        off.
    :raises ValueError: If an argument is invalid, the address is not loopback and the site has no
        password, or a secret key, passwords or hosts are given with an application.
    :raises TypeError: If `passwords` or `hosts` is a single string.
    :raises OSError: If the address cannot be listened on.
    :raises RuntimeError: If the application's startup or shutdown fails.
    """
    if not isinstance(app_or_model, Starlette):
        app = create_app(app_or_model, secret_key=secret_key, passwords=passwords, hosts=hosts)
    elif secret_key or passwords or hosts:
        raise ValueError(
            "the app has its own secret key, passwords and hosts; give them to create_app"
        )
    else:
        app = app_or_model
    if not grace >= 0:
        raise ValueError("grace must be at least 0 seconds")
    with await _listen(host, port, protected=getattr(app.state, "protected", False)) as listener:
        url = url_of(listener, "http" if ssl_context is None else "https")
        server = Server(app, listener, LIMITS, ssl_context)
        await server.run(lambda: task_status.started(url), until, grace)


async def _listen(host: str, port: int, *, protected: bool) -> socket.socket:
    found = await getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    if not protected and not ip_address(address[0]).is_loopback:
        raise ValueError(
            f"others could reach the site on {host} and use its model; give passwords, or listen "
            "on 127.0.0.1"
        )
    return listen(family, kind, protocol, address, unread_seconds=LIMITS.unread_seconds)
