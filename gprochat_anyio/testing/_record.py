"""Recording of exchanges with a real site."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from gprochat_anyio import Client
from gprochat_anyio._request.chat_client import opener_of
from gprochat_anyio._wire.gprochat import sign
from gprochat_anyio._wire.json_body import decode_json_object
from gprochat_anyio.transport._connection import Connection, Receiver
from gprochat_anyio.transport._failures import ProtocolViolation
from gprochat_anyio.transport._response_parser import ResponseParser

from ._apis import dialect_at
from ._dialect import turns_in_parts
from ._request_parser import RequestParser
from ._requests import Api
from ._scrubbing import scrub_json, scrub_response, scrub_texts
from ._transcripts import HISTORIES, End, Read, Transcript, number_of

_PASSWORD = "a password"  # noqa: S105 - replaces the real one in files


@asynccontextmanager
async def record(client: Client, path: str | os.PathLike[str]) -> AsyncIterator[None]:
    """Record a client's exchanges within the block in a folder, for `replay`.

    ::

        async with Client.from_env() as client, record(client, "recordings"):
            await client.ask("Hello")

    Each exchange, including retries, is written to a file `001.json`, `002.json` and so on, after
    any existing files. It is written when the exchange ends, or at the end of the block. **The
    files contain prompts and replies**, but no secrets: requests are signed with an empty key, the
    password is replaced, sent header fields are omitted, and cookies and all occurrences of the
    password or the API key are masked. Password checks are not recorded.

    The client's idle connections are closed at the start and at the end of the block.

    :param path: The folder, which is created if it does not exist.
    :raises OSError: If the folder cannot be created or, at the end, if a file could not be written.
    :raises ValueError: If the client uses a transport of httpx, whose data cannot be observed, or a
        model in this process.
    """
    pool = opener_of(client).pool
    if pool is None:
        raise ValueError(
            "only the library's own transport can be recorded; this client uses another one, or a "
            "model in this process"
        )
    tape = _Tape(Path(path))
    pool.close_idle()
    pool.wrap = tape.recorded
    try:
        yield
    finally:
        pool.wrap = None
        tape.end()
        pool.close_idle()
    if tape.failure is not None:
        raise tape.failure


class _Tape:
    """Writer of exchanges to a folder, which tracks the open ones."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._number = max((number_of(path) or 0 for path in folder.glob("*.json")), default=0)
        self._running: dict[_RecordedExchange, None] = {}
        self._ended = False
        self.failure: OSError | None = None

    def recorded(self, connection: Connection) -> Connection:
        return _RecordedConnection(connection, self)

    def begin(self, path: str, headers: dict[str, str], body: bytes) -> _RecordedExchange | None:
        """Start to record a request. Return `None` if it is not a request for a reply."""
        request = decode_json_object(body)
        if self._ended or not HISTORIES & request.keys():
            return None
        dialect = dialect_at(path)
        exchange = _RecordedExchange(request, dialect.api, dialect.secret(headers, request) or None)
        self._running[exchange] = None
        return exchange

    def take(self, exchange: _RecordedExchange, data: bytes) -> None:
        if exchange in self._running and exchange.take(data):
            self.finish(exchange, "complete")

    def finish(self, exchange: _RecordedExchange, end: End) -> None:
        if exchange not in self._running:
            return
        del self._running[exchange]
        self._number += 1
        name = f"{self._number:03}"
        try:
            exchange.transcript(name, end).dump(self._folder / f"{name}.json")
        except OSError as error:  # the client would take it for an error of its connection
            self.failure = error

    def end(self) -> None:
        self._ended = True
        for exchange in tuple(self._running):
            self.finish(exchange, "left")


class _RecordedExchange:
    def __init__(self, request: Mapping[str, Any], api: Api, secret: str | None) -> None:
        self._request = request
        self._api = api
        self._secret = secret
        self._reads: list[Read] = []
        self._began = anyio.current_time()
        self._response = ResponseParser()

    def take(self, data: bytes) -> bool:
        """Record data of the response. Return True if the response is complete."""
        self._reads.append(Read(anyio.current_time() - self._began, data))
        try:
            self._response.feed(data)
        except ProtocolViolation:  # the client reports it
            return False
        return self._response.complete

    def transcript(self, name: str, end: End) -> Transcript:
        self._response.release()
        # cookies and passwords may span two reads
        clean = scrub_response(b"".join(read.data for read in self._reads), self._secret)
        reads, start = [], 0
        for read in self._reads:
            reads.append(Read(read.t, clean[start : start + len(read.data)]))
            start += len(read.data)
        request = self._request
        if self._api == "gprochat":
            request = _anonymous(request, self._secret)
        else:
            request = scrub_json(request, self._secret)
        return Transcript(name, request, reads, end)


class _RecordedConnection:
    """A connection that records the data between it and its receiver."""

    def __init__(self, connection: Connection, tape: _Tape) -> None:
        self._connection = connection
        self._tape = tape
        self._exchange: _RecordedExchange | None = None
        self._sent = RequestParser(self._begin)
        self._receiver: Receiver | None = None
        # the pool sees this object as the connection
        self.target = connection.target
        self.reactor = connection.reactor
        self.reused = False
        self.expires = 0.0

    @property
    def receiver(self) -> Receiver | None:
        return self._receiver

    @receiver.setter
    def receiver(self, receiver: Receiver | None) -> None:
        self._receiver = receiver
        self._connection.receiver = None if receiver is None else self

    @property
    def on_unsolicited(self) -> Callable[[Any], None] | None:
        return self._connection.on_unsolicited

    @on_unsolicited.setter
    def on_unsolicited(self, callback: Callable[[Any], None] | None) -> None:
        self._connection.on_unsolicited = None if callback is None else lambda _: callback(self)

    @property
    def closed(self) -> bool:
        return self._connection.closed

    @property
    def paused(self) -> bool:
        return self._connection.paused

    @property
    def is_sending(self) -> bool:
        return self._connection.is_sending

    def is_quiet(self) -> bool:
        return self._connection.is_quiet()

    def look(self) -> None:
        self._connection.look()

    def pause(self) -> None:
        self._connection.pause()

    def resume(self) -> None:
        self._connection.resume()

    def fileno(self) -> int:
        return self._connection.fileno()

    async def send(self, data: bytes) -> None:
        self._sent.feed(data)
        await self._connection.send(data)

    def feed(self, data: bytes) -> None:
        assert self._receiver is not None
        if self._exchange is not None:
            self._tape.take(self._exchange, data)
        self._receiver.feed(data)

    def lost(self, error: Exception | None) -> None:
        assert self._receiver is not None
        self._finish("closed" if error is None else "reset")
        self._receiver.lost(error)

    def broken(self, error: BaseException) -> None:
        assert self._receiver is not None
        self._receiver.broken(error)

    def close(self) -> None:
        self._finish("left")
        self._connection.close()

    def _begin(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self._exchange = self._tape.begin(path, headers, body)

    def _finish(self, end: End) -> None:
        if self._exchange is not None:
            self._tape.finish(self._exchange, end)


def _anonymous(request: Mapping[str, Any], password: str | None) -> dict[str, Any]:
    """Return a request without its secrets, signed with an empty key."""
    messages = scrub_texts(request.get("messages"), password)
    when = request.get("time")
    turns = turns_in_parts(messages)
    signed = sign(when, turns[-1].text, "") if turns and isinstance(when, int) else ""
    return {
        "messages": messages,
        "time": when,
        "pass": None if password is None else _PASSWORD,
        "sign": signed,
    }
