"""Hypercorn's connections, for clients that mean no good.

As they come, a malformed upgrade to HTTP/2 or to WebSockets ends the whole server on Trio, and a
client that leaves behind a request that it has pipelined goes unnoticed. Here a connection talks
HTTP/1 only, fails alone, and is read from at all times.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from types import FunctionType
from typing import Any, Final

import h11
import hypercorn.asyncio.run
import hypercorn.trio.run
import trio
from anyio import WouldBlock, create_memory_object_stream, create_task_group
from hypercorn.asyncio.tcp_server import TCPServer as AsyncioConnection
from hypercorn.events import Closed, RawData
from hypercorn.protocol import ProtocolWrapper
from hypercorn.trio.tcp_server import TCPServer as TrioConnection

PIPELINED: Final = 16
"""How many reads may wait for the request before them to be answered; one more, and the
connection is cut."""

_READ_SIZE: Final = 64 * 1024

_log = logging.getLogger("gprochat_anyio.site")


class _Http1(h11.Connection):
    """Knows of no other protocol, and so upgrades to none."""

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            if not event.http_version.startswith(b"1."):
                raise h11.RemoteProtocolError("only HTTP/1 is spoken here", 505)
            return h11.Request(
                method=event.method,
                target=event.target,
                headers=[field for field in event.headers if field[0] != b"upgrade"],
                http_version=event.http_version,
            )
        return event


class _OnAsyncio(AsyncioConnection):
    async def run(self) -> None:
        await _alone(super().run)

    async def _read_data(self) -> None:
        await _read(self.protocol, self._receive)

    async def _receive(self) -> bytes:
        try:
            return await self.reader.read(_READ_SIZE)
        except OSError:
            return b""

    async def _initiate_server_close(self) -> None:
        await super()._initiate_server_close()
        # asyncio would wait half a minute for the farewell of TLS. Here a connection is idle; what
        # is still to be written of a reply goes first.
        if not self.writer.transport.get_write_buffer_size():
            self.writer.transport.abort()


class _OnTrio(TrioConnection):
    async def run(self) -> None:
        await _alone(super().run)

    async def _read_data(self) -> None:
        await _read(self.protocol, self._receive)

    async def _receive(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(_READ_SIZE))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""


async def _alone(run: Callable[[], Awaitable[None]]) -> None:
    """What goes wrong with one connection is not to end the others."""
    try:
        await run()
    except* TimeoutError:
        pass  # the system gave its client up, which read nothing for too long
    except* Exception as failures:  # noqa: BLE001 - Hypercorn is foreign code
        # Without its text and its traceback, which may quote what the client sent.
        _log.error("a connection failed: %s", type(_first(failures)).__qualname__)


async def _read(protocol: ProtocolWrapper, receive: Callable[[], Awaitable[bytes]]) -> None:
    """Pass on what a client sends, until it leaves; at that its request is cancelled at once."""
    limit = protocol.config.h11_max_incomplete_size
    connection: h11.Connection = _Http1(h11.SERVER, max_incomplete_event_size=limit)
    http1: Any = protocol.protocol  # HTTP/2, if the caller's TLS has agreed on it, ends here
    http1.connection = connection
    send, received = create_memory_object_stream[bytes](PIPELINED)

    async def pass_on() -> None:
        # Stands still behind a request that is being answered.
        async for data in received:
            await protocol.handle(RawData(data))

    async with create_task_group() as tg:
        tg.start_soon(pass_on)
        with send, received:
            while data := await receive():
                try:
                    send.send_nowait(data)
                except WouldBlock:
                    if connection.their_state is h11.DONE:
                        break
                    await send.send(data)
            await protocol.handle(Closed())
            tg.cancel_scope.cancel()


def _first(failures: BaseExceptionGroup[Exception]) -> Exception:
    failure = failures.exceptions[0]
    return _first(failure) if isinstance(failure, BaseExceptionGroup) else failure


def _with(worker_serve: Any, connection: type) -> Any:
    """Hypercorn's function, making connections of this kind; its own stays what it is."""
    scope = {**worker_serve.__globals__, "TCPServer": connection}
    function = FunctionType(worker_serve.__code__, scope, closure=worker_serve.__closure__)
    function.__kwdefaults__ = worker_serve.__kwdefaults__
    return function


serve_on_asyncio: Final = _with(hypercorn.asyncio.run.worker_serve, _OnAsyncio)
"""`hypercorn.asyncio.serve`, for an application that Hypercorn has wrapped."""

serve_on_trio: Final = _with(hypercorn.trio.run.worker_serve, _OnTrio)
"""`hypercorn.trio.serve`, likewise."""
