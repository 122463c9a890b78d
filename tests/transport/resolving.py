"""A name server for tests, and a record of the sockets that connecting opens."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from gprochat_anyio.transport import _names
from gprochat_anyio.transport._connecting import Opened


@dataclass
class NameServer:
    """What names below `.test` resolve to, and what was looked up.

    :param hold: lookups of names wait for it
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
    """Answer lookups of names below `.test` for the time of the block."""
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

    :param kind: makes them
    """
    made = Sockets()

    def open_socket(*arguments: Any) -> socket.socket:
        made.append(kind(*arguments))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        scripted = SimpleNamespace(**{**vars(socket), "socket": open_socket})
        patch.setattr(_names, "socket", scripted)
        yield made
