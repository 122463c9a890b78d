"""Making a connection: TCP with happy eyeballs or a Unix socket, through a proxy, under TLS.

Every function closes what it opened before an exception, a cancellation included, leaves it.
"""

from __future__ import annotations

import os
import ssl
from functools import cache

import anyio
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from ._failures import ConnectFailure, ProxyFailure
from ._target import Target


@cache
def default_ssl_context() -> ssl.SSLContext:
    """The one verifying context that is shared by all who bring none: it takes 20 ms to make.

    Certificate authorities are those of SSL_CERT_FILE or SSL_CERT_DIR where set, else certifi's.
    """
    cafile, capath = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if not (cafile or capath):
        import certifi  # noqa: PLC0415 - only who connects by TLS needs it

        cafile = certifi.where()
    context = ssl.create_default_context(cafile=cafile, capath=capath)
    context.set_alpn_protocols(["http/1.1"])
    return context


async def connect(
    target: Target, *, ssl_context: ssl.SSLContext | None, uds: str | None
) -> ByteStream:
    """Connect to an origin, ready to send a request.

    :param uds: the path of a Unix socket to use instead of TCP
    :raises ConnectFailure: with a text that names the origin and the cause
    """
    if target.proxy is None:
        stream = await _connect_socket(target.host, target.port, uds)
    else:
        stream = await _connect_by_proxy(target, ssl_context)
    if target.scheme == "https":
        stream = await _start_tls(stream, target.host, ssl_context)
    return stream


async def close_now(stream: ByteStream) -> None:
    """Close the socket at once: no farewell of TLS, no waiting for the peer, no cancellation."""
    inner: object = stream
    while isinstance(inner, TLSStream):
        inner = inner.transport_stream
    assert isinstance(inner, anyio.abc.AsyncResource)
    with anyio.CancelScope(shield=True):
        await inner.aclose()


async def _connect_socket(host: str, port: int, uds: str | None = None) -> ByteStream:
    place = uds or f"{host}:{port}"
    try:
        if uds is not None:
            return await anyio.connect_unix(uds)
        return await anyio.connect_tcp(host, port)
    except (OSError, UnicodeError, ValueError) as error:
        reason = _reason(error)
    raise ConnectFailure(f"could not connect to {place}: {reason}")


async def _start_tls(
    stream: ByteStream, host: str, ssl_context: ssl.SSLContext | None
) -> ByteStream:
    try:
        return await TLSStream.wrap(
            stream,
            server_side=False,
            hostname=host,
            ssl_context=ssl_context or default_ssl_context(),
        )
    except ssl.SSLCertVerificationError as error:
        reason = f"its certificate is not valid: {error.verify_message}"
    except (OSError, ValueError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
        reason = f"the TLS handshake failed: {_reason(error)}"
    except BaseException:
        await close_now(stream)
        raise
    await close_now(stream)
    raise ConnectFailure(f"could not connect to {host}: {reason}")


async def _connect_by_proxy(target: Target, ssl_context: ssl.SSLContext | None) -> ByteStream:
    proxy = target.proxy
    assert proxy is not None
    try:
        stream = await _connect_socket(proxy.host, proxy.port)
        if proxy.scheme == "https":
            stream = await _start_tls(stream, proxy.host, ssl_context)
    except ConnectFailure as error:
        reason = str(error)
    else:
        if target.forwarded_by is not None:
            return stream
        try:
            from . import _proxy  # noqa: PLC0415 - few need it

            await _proxy.open_tunnel(stream, target)
        except BaseException:
            await close_now(stream)
            raise
        return stream
    raise ProxyFailure(f"the proxy can not be reached: {reason}")


def _reason(error: BaseException) -> str:
    """What the operating system said, once, out of anyio's nest of groups."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(_reason(e) for e in cause.exceptions))
    if cause is not None:
        return _reason(cause)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or "the peer closed the connection"
