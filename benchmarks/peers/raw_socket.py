"""A blocking socket and no HTTP at all: how soon the first text can be here."""

from __future__ import annotations

import socket
from time import perf_counter
from urllib.parse import urlsplit

import wire

from ._peer import Peer


class RawSocket(Peer):
    async def open(self, url: str, at_once: int) -> None:  # noqa: ARG002
        parts = urlsplit(url)
        self._address = parts.hostname or "", parts.port or 0
        self._socket: socket.socket | None = None

    async def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    async def reply(self, prompt: str) -> int:
        _, answer = self._ask(prompt)
        return len(b"".join(answer.split(b"\r\n")[1::2]))  # every other line is a size

    async def first_text(self, prompt: str) -> float:
        first, _ = self._ask(prompt)
        return first

    def _ask(self, prompt: str) -> tuple[float, bytes]:
        start, first, answer = perf_counter(), 0.0, b""
        if self._socket is None:
            self._socket = socket.create_connection(self._address)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = wire.body(prompt)
        self._socket.sendall(
            b"POST /api/generate HTTP/1.1\r\nHost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        while not answer.endswith(b"\r\n0\r\n\r\n"):
            answer += self._socket.recv(65536)
            if not first and answer.partition(b"\r\n\r\n")[2]:
                first = perf_counter() - start
        if b"\r\nConnection: close\r\n" in answer:
            self._socket.close()
            self._socket = None
        return first, answer.partition(b"\r\n\r\n")[2]
