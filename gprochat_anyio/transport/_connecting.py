"""Making a connection: TCP with happy eyeballs or a Unix socket, through a proxy, under TLS.

Every function closes what it opened before an exception, a cancellation included, leaves it.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING

import anyio
from anyio.abc import AsyncResource, ByteStream

from ._failures import ConnectFailure, ProxyFailure, reason_of, single
from ._sockets import SocketStream, connect_to, take_over
from ._target import Proxy, Target
from ._wiring import check_allowed, in_memory

if TYPE_CHECKING:
    import ssl

_CLOSING_SECONDS = 1.0  # for a stream of somebody else's; AnyIO's take no time


async def connect(
    target: Target, *, ssl_context: ssl.SSLContext | None, uds: str | None
) -> ByteStream:
    """Connect to an origin, ready to send a request.

    :param uds: the path of a Unix socket to use instead of TCP
    :raises ConnectFailure: with a text that names the origin and the cause
    :raises NetworkForbiddenError: if a test forbids the network
    """
    if in_memory and (site := in_memory.get(f"{target.scheme}://{target.authority}")) is not None:
        return await site()
    if target.proxy is None:
        stream = await _connect_socket(target.host, target.port, uds)
    else:
        stream = await _connect_proxy(target.proxy, ssl_context)
    try:
        if target.proxy is not None and target.forwarded_by is None:
            from . import _proxies  # noqa: PLC0415 - few need it

            await _proxies.open_tunnel(stream, target)
        if target.scheme == "https":
            stream = await _start_tls(stream, target.host, ssl_context)
    except BaseException:
        await close_now(stream)
        raise
    return stream


async def close_now(stream: ByteStream) -> None:
    """Close the socket at once: no farewell of TLS, no waiting for the peer, no cancellation."""
    inner: AsyncResource = stream
    while (below := getattr(inner, "transport_stream", None)) is not None:
        inner = below
    if isinstance(inner, SocketStream):
        inner.close()
        return
    with anyio.move_on_after(_CLOSING_SECONDS, shield=True):
        await inner.aclose()


async def _connect_socket(host: str, port: int, uds: str | None = None) -> ByteStream:
    if uds is None:
        check_allowed(host)
    place = uds or f"{host}:{port}"
    try:
        if uds is not None:
            return await take_over(await anyio.connect_unix(uds))
        if family := _family_of(host):
            return await connect_to(family, host, port)
        return await take_over(await anyio.connect_tcp(host, port))
    except (OSError, UnicodeError, ValueError) as error:
        reason = reason_of(error)
    except BaseExceptionGroup as group:
        raise single(group) from None
    raise ConnectFailure(f"could not connect to {place}: {reason}")


@lru_cache(maxsize=64)
def _family_of(host: str) -> int | None:
    """The address family of an IP address, where that can be connected to directly: AnyIO looks
    up names and tries several addresses, in tasks and threads that one address does not need."""
    if os.name != "posix":
        return None
    for family in socket.AF_INET, socket.AF_INET6:
        with suppress(OSError, ValueError):
            socket.inet_pton(family, host)
            return family
    return None


async def _connect_proxy(proxy: Proxy, ssl_context: ssl.SSLContext | None) -> ByteStream:
    try:
        stream = await _connect_socket(proxy.host, proxy.port)
        if proxy.scheme == "https":
            try:
                return await _start_tls(stream, proxy.host, ssl_context)
            except BaseException:
                await close_now(stream)
                raise
    except ConnectFailure as error:
        reason = str(error)
    else:
        return stream
    raise ProxyFailure(f"the proxy can not be reached: {reason}")


async def _start_tls(
    stream: ByteStream, host: str, ssl_context: ssl.SSLContext | None
) -> ByteStream:
    from . import _tls  # noqa: PLC0415 - takes 13 ms, which plain HTTP need not pay

    return await _tls.start_tls(stream, host, ssl_context)
