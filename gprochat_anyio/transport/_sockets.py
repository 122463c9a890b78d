"""Byte streams on connected sockets, with less work for each read than AnyIO's own.

AnyIO makes the connection and then hands its socket over. On asyncio its streams start and stop
watching the socket around each read, which costs more than the read; here the watching goes on
while somebody keeps reading. Neither stream reads ahead: what nobody waits for stays in the
kernel, which is the backpressure.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled, current_token


def socket_of(stream: ByteStream) -> Any:
    """The socket below a stream; None without one, or where the peer has reset it already: AnyIO
    asks it for its addresses too, which it does not know any more."""
    try:
        return stream.extra(SocketAttribute.raw_socket, None)  # noqa: S610 - not Django's
    except (OSError, AttributeError):
        return None


async def take_over(stream: ByteStream) -> ByteStream:
    """The connection of a stream of AnyIO's as one of these streams, where that is possible.

    The stream that was given is closed, without the connection; cancelled, both are.
    """
    raw = socket_of(stream)
    if raw is None or os.name != "posix":  # not of AnyIO's making, or on a proactor
        return stream
    if type(raw).__module__.startswith("uvloop"):  # it reads at once: that would be lost
        return stream
    try:
        connected = socket.fromfd(raw.fileno(), raw.family, raw.type)
        connected.setblocking(False)
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise
    try:
        await stream.aclose()
    except BaseException:
        connected.close()
        raise
    return _stream_on(connected)


async def connect_to(family: int, host: str, port: int) -> ByteStream:
    """Connect to an IP address. Cancelled, the socket is closed.

    :raises OSError: if that fails
    """
    await checkpoint_if_cancelled()
    connecting = socket.socket(family, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        failure = connecting.connect_ex((host, port))
        if failure == errno.EINPROGRESS:
            await anyio.wait_writable(connecting.fileno())
            failure = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        else:
            await checkpoint()
        if failure:
            raise OSError(failure, os.strerror(failure))  # noqa: TRY301 - closed like any other
        return _stream_on(connecting)
    except BaseException:
        connecting.close()
        raise


def _stream_on(connected: socket.socket) -> ByteStream:
    loop = current_token().native_token
    if hasattr(loop, "add_reader"):
        return _AsyncioStream(connected, loop)
    return _TrioStream(connected)


class SocketStream(ByteStream):
    """A byte stream whose closing needs no event loop, and so can not be cancelled."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        # for event loops: given the socket itself, asyncio makes a `repr` of it, with system calls
        self._fileno = connected.fileno()
        self._waiting = 0  # how many tasks AnyIO has wait for the socket

    async def send(self, item: bytes) -> None:
        await checkpoint_if_cancelled()
        rest = memoryview(item)
        while True:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                pass
            except OSError as error:
                raise self._lost(error) from error
            if not rest:
                return
            self._waiting += 1
            try:
                await anyio.wait_writable(self._fileno)
            finally:
                self._waiting -= 1

    async def send_eof(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket, at once. A task that is using it gets `anyio.ClosedResourceError`."""
        if self._waiting and self._socket.fileno() >= 0:
            anyio.notify_closing(self._fileno)
        self._socket.close()

    async def aclose(self) -> None:
        self.close()
        await checkpoint()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {SocketAttribute.raw_socket: lambda: self._socket}

    def _lost(self, error: OSError) -> Exception:
        closed = self._socket.fileno() < 0
        return anyio.ClosedResourceError() if closed else anyio.BrokenResourceError(str(error))

    def _received(self, max_bytes: int) -> bytes | None:
        """What is there: None if that is nothing yet."""
        try:
            data = self._socket.recv(max_bytes)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._lost(error) from error
        if not data:
            raise anyio.EndOfStream
        return data


class _TrioStream(SocketStream):
    async def receive(self, max_bytes: int = 65536) -> bytes:
        while True:
            if self._socket.fileno() < 0:
                raise anyio.ClosedResourceError
            self._waiting += 1
            try:
                await anyio.wait_readable(self._fileno)
            finally:
                self._waiting -= 1
            data = self._received(max_bytes)
            if data is not None:
                return data


class _AsyncioStream(SocketStream):
    """Goes on watching the socket between two reads, until it is readable and nobody waits.

    It reads where the event loop says that it can: a task that reads later would find the loop
    saying so twice.

    :param loop: asyncio's, or one like it
    """

    def __init__(self, connected: socket.socket, loop: Any) -> None:
        super().__init__(connected)
        self._loop = loop
        self._watching = False
        self._waiter: Any = None
        self._max_bytes = 0
        self._data = b""  # read, and not yet taken by the task that waited
        self._ended: Exception | None = None

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if self._data:  # the task that waited for it was cancelled
            await checkpoint()
        elif self._waiter is not None:
            raise anyio.BusyResourceError("reading from")
        elif self._ended is None:
            if not self._watching:
                self._loop.add_reader(self._fileno, self._on_readable)
                self._watching = True
            self._max_bytes = max_bytes
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._ended is not None and not self._data:
            raise self._ended
        data, self._data = self._data[:max_bytes], self._data[max_bytes:]
        return data

    def close(self) -> None:
        self._ended = anyio.ClosedResourceError()
        self._data = b""
        self._stop_watching()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        super().close()

    def _on_readable(self) -> None:
        if self._waiter is None:
            self._stop_watching()
        elif not self._waiter.done():
            try:
                data = self._received(self._max_bytes)
            except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
                self._ended = error
            else:
                if data is None:
                    return
                self._data = data
            self._waiter.set_result(None)

    def _stop_watching(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._fileno)
