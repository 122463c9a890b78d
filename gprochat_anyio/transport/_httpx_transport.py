"""`AnyIOTransport`: the library's connections for users of httpx."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from functools import cache, partial
from math import inf
from types import ModuleType
from typing import Any, Literal, Self, TypeVar

import anyio

from gprochat_anyio._redaction import Hidden

from ._exchange import Exchange, exchange
from ._failures import ConnectFailure, ConnectionLost, ProxyFailure, TransportFailure
from ._http_library import httpx, library_of
from ._pool import Pool
from ._stages import Stage
from ._target import Proxy, Target

_T = TypeVar("_T")

_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
_NOT_IN_A_HEAD = (b"\r", b"\n", b"\0")


class AnyIOTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 over connections of its own, for `httpx.AsyncClient(transport=...)`.

    Bodies are handed over read by read, at most 64 KiB each; while nobody reads, nothing is read
    from the socket. The limits of httpx's `timeout` are honoured. A request that is safe to
    repeat is repeated once if a kept connection turns out to have been closed by the server.

    Cancelled at any point, a request's connection is closed and its slot free before the
    cancellation leaves; closing an unfinished response never waits for the server.

    :param ssl_context: replaces the shared one, which verifies by certifi's authorities
    :param proxy: the URL of a proxy; `http://`, `https://` or `socks5://`
    :param uds: the path of a Unix socket to connect to, whatever the URL's host
    :param max_connections: at most so many connections, idle ones included; None is no bound
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
            raise ValueError("max_connections must be at least 1, or None for no bound")
        self.pool = Pool(max_connections=max_connections, ssl_context=ssl_context, uds=uds)
        """The connections, which the library's own client uses without httpx between."""
        self.proxy = None if proxy is None else Proxy.from_url(proxy)
        """The way of all requests."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and read the head of its response.

        :raises httpx.TransportError: of the kind that httpx documents, never without a message
        """
        library = library_of(request)
        target = self._target(library, request)
        head = _head(library, request, target)
        body = await _body(library, request)
        limits = _Limits(library, request)
        made = await limits.run(
            "pool", lambda: self._exchange(request.method, target, head, body, limits)
        )
        answer = made.parser
        return library.Response(  # type: ignore[no-any-return]
            answer.status,
            headers=answer.headers,
            stream=_stream_class(library)(made, limits),
            extensions={
                "http_version": b"HTTP/" + answer.version.encode(),
                "reason_phrase": answer.reason,
            },
        )

    async def aclose(self) -> None:
        """Close the idle connections; those in use are closed as their responses end."""
        await self.pool.aclose()

    async def _exchange(
        self,
        method: str,
        target: Target,
        head: bytes,
        body: bytes | AsyncIterator[bytes],
        limits: _Limits,
    ) -> Exchange:
        send = partial(
            exchange,
            self.pool,
            target,
            head,
            body,
            on_stage=limits.start,
            bodiless=method == "HEAD",
        )
        try:
            return await send()
        except ConnectionLost as failure:
            if method not in _REPEATABLE or not isinstance(body, bytes) or not failure.stale:
                raise
        limits.start("pool")
        return await send(fresh=True)

    def _target(self, library: ModuleType, request: httpx.Request) -> Target:
        url = request.url
        if url.scheme not in ("http", "https"):
            raise library.UnsupportedProtocol(f"{url.scheme}:// is not HTTP", request=request)
        port = url.port or {"http": 80, "https": 443}[url.scheme]
        return Target(url.scheme, url.raw_host.decode("ascii"), port, self.proxy)


class _Limits:
    """httpx's four limits on one exchange: pool, connect, write and read, each per operation."""

    def __init__(self, library: ModuleType, request: httpx.Request) -> None:
        self._library = library
        self._request = request
        self._limits: Mapping[str, float | None] = request.extensions.get("timeout", {})
        self._scope = anyio.CancelScope()
        self._name = "pool"

    def start(self, stage: Stage | Literal["pool"]) -> None:
        """Start the limit of a stage; that of the stage before stops."""
        self._name = "write" if stage == "send" else stage
        limit = self._limits.get(self._name)
        self._scope.deadline = inf if limit is None else anyio.current_time() + limit

    async def run(
        self, stage: Stage | Literal["pool"], operation: Callable[[], Awaitable[_T]]
    ) -> _T:
        """Run an operation under the limits, with its failures made into httpx's.

        :raises httpx.TransportError: what went wrong
        """
        failure: TransportFailure | None = None
        with anyio.CancelScope() as self._scope:
            self.start(stage)
            try:
                return await operation()
            except TransportFailure as caught:
                failure = caught
        name, message = self._timed_out() if failure is None else _named(failure)
        raise getattr(self._library, name)(message, request=self._request)

    def _timed_out(self) -> tuple[str, str]:
        limit = self._limits[self._name]
        return f"{self._name.capitalize()}Timeout", f"{self._name} took more than {limit:g} s"


class _Body:
    """The body of a response, as httpx iterates over it."""

    def __init__(self, made: Exchange, limits: _Limits) -> None:
        self._exchange = made
        self._limits = limits

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while pieces := await self._limits.run("read", self._exchange.receive):
            if data := b"".join(pieces):
                return data
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await self._exchange.aclose()


@cache
def _stream_class(library: ModuleType) -> type[_Body]:
    return type("AnyIOResponseStream", (_Body, library.AsyncByteStream), {})


def _head(library: ModuleType, request: httpx.Request, target: Target) -> Hidden:
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
            "the request's method, URL or headers hold CR, LF or NUL", request=request
        )
    return Hidden(b"\r\n".join([*lines, b"", b""]))


async def _body(library: ModuleType, request: httpx.Request) -> bytes | AsyncIterator[bytes]:
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


def _named(failure: TransportFailure) -> tuple[str, str]:
    """The name of httpx's exception for a failure, and its message."""
    if isinstance(failure, ProxyFailure):
        name = "ProxyError"
    elif isinstance(failure, ConnectFailure):
        name = "ConnectError"
    elif isinstance(failure, ConnectionLost) and failure.reset:
        name = "ReadError"
    else:
        name = "RemoteProtocolError"
    return name, str(failure)
