"""The implementation of `AnyIOTransport`, without its base class of httpx or httpx2."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple, Self

import anyio
from anyio.lowlevel import checkpoint

from gprochat_anyio._redaction import Hidden

from ._exchange import Exchange
from ._failures import ConnectionLost
from ._httpx_limits import HttpxLimits
from ._pool import Pool
from ._response_buffer import ResponseBuffer
from ._target import Proxy, Target

_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
_NOT_IN_A_HEAD = (b"\r", b"\n", b"\0")


class ConnectionSource(NamedTuple):
    """The pool and the proxy of an `AnyIOTransport`. A `Client` uses them without httpx."""

    pool: Pool
    proxy: Proxy | None


class _HttpxExchange(Exchange):
    """An exchange that restarts httpx's read timeout on every read from the connection."""

    __slots__ = ("limits",)

    limits: HttpxLimits

    def feed(self, data: bytes) -> None:
        self.limits.renew_read()
        super().feed(data)


class HTTPTransport:
    """HTTP/1.1 transport for `AsyncClient(transport=...)` of httpx or httpx2.

    A response's body is streamed as it is read from the socket. At most 64 KiB and one read are
    buffered ahead of the consumer. The limits of httpx's `timeout` are honoured. An idempotent
    request is sent once more if the server had closed the kept-alive connection.

    Cancelling a request closes its connection and frees its slot before the cancellation
    propagates. Closing an unfinished response never waits for the server.

    :param ssl_context: Replaces the shared context, which trusts certifi's authorities.
    :param proxy: The URL of a proxy: `http://`, `https://` or `socks5://`.
    :param uds: The path of a Unix socket to connect to, regardless of the URL's host.
    :param max_connections: Maximum number of connections, including idle ones. `None` for no limit.
    :raises ValueError: If an argument is invalid. The message names it.
    """

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
        uds: str | None = None,
        max_connections: int | None = 100,
    ) -> None:
        if max_connections is not None and max_connections < 1:
            raise ValueError("max_connections must be at least 1, or None for no limit")
        self._connections = ConnectionSource(
            Pool(max_connections=max_connections, ssl_context=ssl_context, uds=uds),
            None if proxy is None else Proxy.from_url(proxy),
        )

    async def aclose(self) -> None:
        """Close the idle connections. Connections in use are closed when their responses end."""
        self._connections.pool.close()

    async def _handle(self, library: ModuleType, request: Any) -> Any:
        """Send a request, and return its response once the head has arrived."""
        target = self._target(library, request)
        head = _head(library, request, target)
        body = await _body(library, request)
        limits = HttpxLimits(library, request)
        buffer = await limits.run(
            "pool", lambda: self._exchange(request.method, target, head, body, limits)
        )
        response = buffer.head
        assert response is not None
        return library.Response(
            response.status,
            headers=response.headers,
            stream=_stream_class(library)(buffer, limits),
            extensions={
                "http_version": b"HTTP/" + response.version.encode(),
                "reason_phrase": response.reason,
            },
        )

    async def _exchange(
        self,
        method: str,
        target: Target,
        head: bytes,
        body: bytes | AsyncIterator[bytes],
        limits: HttpxLimits,
    ) -> ResponseBuffer:
        try:
            return await self._attempt(method, target, head, body, limits, fresh=False)
        except ConnectionLost as failure:
            if method not in _REPEATABLE or not isinstance(body, bytes) or not failure.stale:
                raise
        limits.start("pool")
        return await self._attempt(method, target, head, body, limits, fresh=True)

    async def _attempt(
        self,
        method: str,
        target: Target,
        head: bytes,
        body: bytes | AsyncIterator[bytes],
        limits: HttpxLimits,
        *,
        fresh: bool,
    ) -> ResponseBuffer:
        pool = self._connections.pool
        connection = await pool.acquire(target, limits.start, fresh=fresh)
        buffer = ResponseBuffer(connection.reactor.signal())
        exchange = _HttpxExchange(pool, connection, buffer, bodiless=method == "HEAD")
        exchange.limits = limits
        buffer.exchange = exchange
        try:
            await _send(buffer, head, body, limits)
            limits.start("read")
            await buffer.wait_for_head()
        except BaseException:
            exchange.close()
            raise
        return buffer

    def _target(self, library: ModuleType, request: Any) -> Target:
        url = request.url
        if url.scheme not in ("http", "https"):
            raise library.UnsupportedProtocol(f"{url.scheme}:// is not HTTP", request=request)
        port = url.port or {"http": 80, "https": 443}[url.scheme]
        return Target(url.scheme, url.raw_host.decode("ascii"), port, self._connections.proxy)


def connections_of(transport: object) -> ConnectionSource | None:
    """Return the connections of an `AnyIOTransport`. `None` for any other transport, and for a
    subclass that sends requests itself."""
    if not isinstance(transport, HTTPTransport):
        return None
    handle = type(transport).handle_async_request  # type: ignore[attr-defined]
    own = getattr(handle, "__module__", "").startswith("gprochat_anyio.transport.")
    return transport._connections if own else None  # noqa: SLF001 - of a class in this module


async def _send(
    buffer: ResponseBuffer, head: bytes, body: bytes | AsyncIterator[bytes], limits: HttpxLimits
) -> None:
    """Send a request. Stop if the server refuses it before all of it has been sent."""
    exchange = buffer.exchange
    exchange.sent = False
    try:
        with anyio.CancelScope() as sending:
            buffer.on_refusal = sending.cancel
            limits.start("send")
            await checkpoint()
            if isinstance(body, bytes):
                await exchange.send(Hidden(b"".join((head, body))))
            else:
                await exchange.send(head)
                async for part in body:
                    limits.start("send")
                    # A refusal or the end of the connection may have arrived. There is no check
                    # after the last part, when a response would find the request unfinished.
                    await checkpoint()
                    await exchange.send(part)
            exchange.sent = True
    finally:
        buffer.on_refusal = None
        if isinstance(body, AsyncGenerator):
            await body.aclose()


class _Body:
    """The body of a response, as a stream of httpx."""

    def __init__(self, buffer: ResponseBuffer, limits: HttpxLimits) -> None:
        self._buffer = buffer
        self._limits = limits

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if data := await self._limits.run("read", self._buffer.read):
            return data
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._buffer.close()


@cache
def _stream_class(library: ModuleType) -> type[_Body]:
    return type("AnyIOResponseStream", (_Body, library.AsyncByteStream), {})


def _head(library: ModuleType, request: Any, target: Target) -> Hidden:
    place = request.url.raw_path
    fields = list(request.headers.raw)
    if target.forwarded_by:
        place = f"{target.scheme}://{target.authority}".encode() + place
        if target.forwarded_by.authorization:
            fields.append((b"Proxy-Authorization", target.forwarded_by.authorization))
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), place)]
    lines += [name + b": " + value for name, value in fields]
    if any(bad in line for line in lines for bad in _NOT_IN_A_HEAD):
        raise library.LocalProtocolError(
            "the request's method, URL or headers contain CR, LF or NUL", request=request
        )
    return Hidden(b"\r\n".join([*lines, b"", b""]))


async def _body(library: ModuleType, request: Any) -> bytes | AsyncIterator[bytes]:
    stream: Any = request.stream
    if isinstance(stream, library.ByteStream):
        return b"".join([part async for part in stream])
    if "transfer-encoding" in request.headers:
        return _chunked(stream)
    return stream.__aiter__()  # type: ignore[no-any-return]


async def _chunked(stream: Any) -> AsyncIterator[bytes]:
    parts = stream.__aiter__()
    try:
        async for part in parts:
            if part:
                yield b"%x\r\n%b\r\n" % (len(part), part)
        yield b"0\r\n\r\n"
    finally:
        if isinstance(parts, AsyncGenerator):
            await parts.aclose()
