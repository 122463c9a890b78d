"""Connecting in tests: a name server, and a record of the opened sockets."""

from __future__ import annotations

import socket
import ssl
import threading
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from support.servers import authority, black_hole, client_context, open_sockets, serving

import gprochat_anyio
from gprochat_anyio.transport import _names
from gprochat_anyio.transport._connecting import Opened, connect
from gprochat_anyio.transport._failures import ConnectFailure
from gprochat_anyio.transport._target import Target


@dataclass
class NameServer:
    """A name server for names below `.test`, which records the lookups.

    :param hold: Lookups wait until it is set.
    """

    hosts: dict[str, list[str]]
    hold: threading.Event | None = None
    asked: list[str] = field(default_factory=list)
    waiting: threading.Event = field(default_factory=threading.Event)

    def look_up(self, host: str, port: int) -> list[Any]:
        self.asked.append(host)
        self.waiting.set()
        if self.hold is not None:
            assert self.hold.wait(20)
        if host not in self.hosts:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in self.hosts[host]
        ]


@contextmanager
def resolving(hosts: dict[str, list[str]], *, hold: threading.Event | None = None) -> Iterator[Any]:
    """Answer lookups of names below `.test` in the block."""
    server = NameServer(hosts, hold)
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *options: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        flags = options[3] if len(options) > 3 else named.get("flags", 0)
        if not name.endswith(".test") or flags & socket.AI_NUMERICHOST:
            return real(host, port, *options, **named)
        return server.look_up(name, port)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield server


class Sockets(list[socket.socket]):
    """The sockets that connecting has opened."""

    def still_open(self, opened: Opened | None = None) -> list[socket.socket]:
        kept = None if opened is None else opened.socket
        return [made for made in self if made is not kept and made.fileno() >= 0]


@contextmanager
def recorded_sockets(kind: type[socket.socket] = socket.socket) -> Iterator[Sockets]:
    """Record the sockets that connecting opens in the block. Enter it within `resolving`.

    :param kind: The class of the sockets.
    """
    made = Sockets()

    def open_socket(*arguments: Any) -> socket.socket:
        made.append(kind(*arguments))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        scripted = SimpleNamespace(**{**vars(socket), "socket": open_socket})
        patch.setattr(_names, "socket", scripted)
        yield made


@asynccontextmanager
async def connected(
    target: Target, context: ssl.SSLContext | None = None, uds: str | None = None
) -> AsyncIterator[Opened]:
    with anyio.fail_after(10):
        opened = await connect(target, ssl_context=context or client_context(), uds=uds)
        with opened.socket:
            assert opened.socket.gettimeout() == 0
            yield opened


@asynccontextmanager
async def failing(message: str, *ports: int) -> AsyncIterator[None]:
    """Assert that connecting in the block fails with a message, and leaves no socket open."""
    with recorded_sockets() as made, pytest.raises(ConnectFailure, match=message) as caught:
        yield
    assert not made.still_open()
    assert caught.value.__context__ is None
    assert "\n" not in str(caught.value)
    assert open_sockets(*ports) == 0


async def has_ipv6() -> bool:
    try:
        async with serving(black_hole, host="::1"):
            return True
    except OSError:
        return False


def context_of(*protocols: str) -> ssl.SSLContext:
    """Return a client's context that offers these protocols."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


async def exchanged(opened: Opened, request: bytes) -> bytes:
    """Send a request through all layers. Return the response, joined."""
    for layer in reversed(opened.layers):
        layer.encrypt(request)
        request = layer.outgoing()
    assert opened.socket.send(request) == len(request)
    received = b""
    while True:
        for layer in opened.layers:
            received = layer.decrypt(received)
        if received:
            return received
        await anyio.wait_readable(opened.socket)
        received = opened.socket.recv(65536)


def shown_by(error: BaseException, *secrets: str) -> list[str]:
    """Return the local variables that show a secret, in frames of the library."""
    own = Path(gprochat_anyio.__file__).parent
    shown = [
        repr(frame.f_locals)
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if own in Path(frame.f_code.co_filename).parents
    ]
    return [text for text in shown if any(secret in text for secret in secrets)]
