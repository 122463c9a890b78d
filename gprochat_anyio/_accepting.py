"""Accept connections, for the embedded site and for the testing kit's live site."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias

from anyio import sleep, wait_readable

BACKLOG: Final = 1024
"""Maximum number of connections that wait to be accepted."""

PAUSE_SECONDS: Final = 0.1
"""Pause after the system has run out of descriptors or memory."""

_AT_ONCE: Final = 64
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_log = logging.getLogger("gprochat_anyio.site")

Address: TypeAlias = tuple[Any, ...]
"""A socket's address: host, port and, for IPv6, two more fields."""

Take: TypeAlias = Callable[[socket.socket, Address], None]
"""A callback that takes a connection, which it then owns, and the client's address."""


def listen(
    family: int, kind: int, protocol: int, address: Address, *, unread_seconds: float | None = None
) -> socket.socket:
    """Return a non-blocking listening socket.

    The first four arguments are those that `getaddrinfo` returns.

    :param unread_seconds: Maximum time that sent data may remain unacknowledged before the system
        closes the connection, in seconds. Ignored except on Linux.
    :raises OSError: If the address cannot be listened on.
    """
    listener = socket.socket(family, kind, protocol)  # asyncio checks that the protocol is TCP
    try:
        # On other systems than POSIX, it would let two servers share the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
        # Accepted connections inherit it. Only the kernel knows when a client reads: data may wait
        # in its buffer for long, even after the connection has been closed.
        if unread_seconds is not None and sys.platform == "linux":
            milliseconds = round(unread_seconds * 1000)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        listener.setblocking(False)
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def url_of(listener: socket.socket, scheme: str) -> str:
    """Return the URL of a listening socket."""
    host, port, *_ = listener.getsockname()
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


async def accept_connections(listener: socket.socket, take: Take) -> None:
    """Accept connections until cancelled. Their sockets are non-blocking, without Nagle's delay.

    A client that disconnects before it is accepted is skipped. When the system has run out of
    descriptors or memory, accepting pauses and is tried again.
    """
    while True:
        await wait_readable(listener)
        try:
            for _ in range(_AT_ONCE):  # then other tasks run
                accepted, address = listener.accept()
                accepted.setblocking(False)
                with suppress(OSError):  # the client has disconnected
                    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                take(accepted, address)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno in _EXHAUSTED:
                _log.warning("cannot accept a connection: %s", error.strerror)
                await sleep(PAUSE_SECONDS)
