"""The floor: an asyncio.Protocol that feeds httptools, and nothing that a client library has.

No timeouts, no checks of the answer, no backpressure, no bound on connections.
"""

from __future__ import annotations

import asyncio
import codecs
from time import perf_counter
from urllib.parse import urlsplit

import httptools
import wire

from ._peer import Peer


class Floor(Peer):
    async def open(self, url: str, at_once: int) -> None:  # noqa: ARG002
        parts = urlsplit(url)
        self._address = parts.hostname, parts.port
        self._idle: list[_Connection] = []

    async def close(self) -> None:
        for connection in self._idle:
            connection.transport.abort()

    async def reply(self, prompt: str) -> int:
        connection = await self._send(prompt)
        try:
            await connection.complete
        except BaseException:
            connection.transport.abort()
            raise
        self._release(connection)
        return connection.characters

    async def first_text(self, prompt: str) -> float:
        start = perf_counter()
        connection = await self._send(prompt)
        await connection.first
        first = perf_counter() - start
        await connection.complete
        self._release(connection)
        return first

    async def _send(self, prompt: str) -> _Connection:
        if self._idle:
            connection = self._idle.pop()
        else:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(_Connection, *self._address)
        connection.send(wire.body(prompt))
        return connection

    def _release(self, connection: _Connection) -> None:
        if connection.parser.should_keep_alive():
            self._idle.append(connection)


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport
    parser: httptools.HttpResponseParser

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def send(self, body: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.first, self.complete = loop.create_future(), loop.create_future()
        self.characters = 0
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
            self.characters += len(self._decode(b"".join(self._pieces)))
            self._pieces.clear()
            if not self.first.done():
                self.first.set_result(None)

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        self.complete.set_result(None)
