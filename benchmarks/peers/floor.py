"""The floor: an asyncio.Protocol that feeds httptools, and nothing else of a client library.

It has no timeouts, no checks of the response, no backpressure and no limit of connections. It calls
the consumer in `data_received`, without waking a task.
"""

from __future__ import annotations

import asyncio
import codecs
from urllib.parse import urlsplit

import httptools
import wire

from ._peer import Peer, Take


class Floor(Peer):
    async def open(self, url: str, at_once: int) -> None:  # noqa: ARG002
        parts = urlsplit(url)
        self._address = parts.hostname or "", parts.port or 0
        self._idle: list[_Connection] = []

    async def close(self) -> None:
        for connection in self._idle:
            connection.transport.abort()

    async def reply(self, prompt: str, take: Take) -> None:
        if self._idle:
            connection = self._idle.pop()
        else:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(_Connection, *self._address)
        connection.send(wire.body(prompt), take)
        try:
            await connection.complete
        except BaseException:
            connection.transport.abort()
            raise
        if connection.parser.should_keep_alive():
            self._idle.append(connection)


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport
    parser: httptools.HttpResponseParser

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def send(self, body: bytes, take: Take) -> None:
        self.complete = asyncio.get_running_loop().create_future()
        self._take = take
        self._pieces: list[bytes] = []
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self.parser = httptools.HttpResponseParser(self)
        self.transport.write(
            b"POST /api/generate HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"content-type: text/plain;charset=UTF-8\r\ncontent-length: %d\r\n\r\n%b"
            % (len(body), body)
        )

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)
        if self._pieces:
            self._take(self._decode(b"".join(self._pieces)))
            self._pieces.clear()

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        self.complete.set_result(None)
