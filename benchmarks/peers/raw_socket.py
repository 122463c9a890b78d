"""A blocking socket without an HTTP library, as a lower bound of the time to the first text."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import wire

from ._peer import Peer, Take


class RawSocket(Peer):
    async def open(self, url: str, at_once: int) -> None:  # noqa: ARG002
        parts = urlsplit(url)
        self._address = parts.hostname or "", parts.port or 0
        self._socket: socket.socket | None = None

    async def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    async def reply(self, prompt: str, take: Take) -> None:
        if self._socket is None:
            self._socket = socket.create_connection(self._address)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body, response, taken = wire.body(prompt), b"", 0
        self._socket.sendall(
            b"POST /api/generate HTTP/1.1\r\nHost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        while not response.endswith(b"\r\n0\r\n\r\n"):
            response += self._socket.recv(65536)
            chunks = response.partition(b"\r\n\r\n")[2]
            text = b"".join(chunks.split(b"\r\n")[1::2]).decode()  # every other line is a size
            take(text[taken:])
            taken = len(text)
        if b"\r\nConnection: close\r\n" in response:
            self._socket.close()
            self._socket = None
