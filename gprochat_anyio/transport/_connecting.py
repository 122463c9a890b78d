"""Open connections: TCP with Happy Eyeballs or a Unix socket, optionally a proxy and TLS.

A function that raises or is cancelled first closes the sockets that it has opened.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import anyio

from ._failures import ConnectFailure, ProxyFailure, reason_of
from ._names import authority_of, connect_first, connect_to, resolve
from ._target import Proxy, Target
from ._wiring import check_allowed

if TYPE_CHECKING:
    import ssl

    from ._tls import TLSLayer

_READ_SIZE = 64 * 1024

_Socket: TypeAlias = socket.socket


class Opened(NamedTuple):
    """A new connection. The caller closes it.

    The layers may hold data that arrived after a handshake. Before waiting for the socket, pass
    `b""` through `decrypt` of each layer, in order, and send their output.
    """

    socket: _Socket
    """Connected and non-blocking."""
    layers: tuple[TLSLayer, ...]
    """The TLS layers, the one next to the socket first. An https site behind an https proxy has
    two."""


async def connect(target: Target, *, ssl_context: ssl.SSLContext | None, uds: str | None) -> Opened:
    """Open a connection to an origin, ready for a request.

    :param ssl_context: The TLS context. `None` for the default context.
    :param uds: The path of a Unix socket to use instead of TCP.
    :raises ConnectFailure: If connecting fails. The message names the origin or the proxy, and the
        cause.
    :raises NetworkForbiddenError: If a test forbids the network.
    """
    if target.proxy is None:
        opening = OpeningSocket(await _connect_socket(target.host, target.port, uds))
    else:
        opening = await _connect_to_proxy(target.proxy, ssl_context)
    try:
        if target.proxy is not None and target.forwarded_by is None:
            from . import _proxies  # noqa: PLC0415 - rarely needed

            await _proxies.open_tunnel(opening, target.proxy, target)
        if target.scheme == "https":
            await opening.start_tls(target.host, ssl_context)
    except BaseException:
        opening.socket.close()
        raise
    return Opened(opening.socket, opening.layers)


class OpeningSocket:
    """A connected socket and its TLS layers, while the connection is being opened."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.layers: tuple[TLSLayer, ...] = ()

    async def start_tls(self, host: str, ssl_context: ssl.SSLContext | None) -> None:
        """Do a TLS handshake, and add its layer on top."""
        from . import _tls  # noqa: PLC0415 - takes 13 ms, not needed for plain HTTP

        self.layers += (await _tls.start_tls(self, host, ssl_context),)

    async def send(self, data: bytes) -> None:
        """Send data through all layers.

        :raises OSError: If the connection breaks.
        """
        for layer in reversed(self.layers):
            layer.encrypt(data)
            data = layer.outgoing()
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self.socket.send(rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self.socket.fileno())

    async def receive(self, max_bytes: int = _READ_SIZE) -> bytes:
        """Wait for data, and return the topmost layer's plaintext.

        :param max_bytes: Maximum number of bytes to read from the socket.
        :raises OSError: If the connection breaks or ends.
        """
        while True:
            for layer in self.layers:
                if layer.ended or layer.failure is not None:
                    raise ConnectionError(str(layer.failure or ""))
            await anyio.wait_readable(self.socket.fileno())
            try:
                data = self.socket.recv(max_bytes)
            except BlockingIOError:
                continue
            if not data:
                raise ConnectionError
            for layer in self.layers:
                data = layer.decrypt(data)
            if data:
                return data


async def _connect_to_proxy(proxy: Proxy, ssl_context: ssl.SSLContext | None) -> OpeningSocket:
    final = False
    try:
        opening = OpeningSocket(await _connect_socket(proxy.host, proxy.port))
        if proxy.scheme == "https":
            try:
                await opening.start_tls(proxy.host, ssl_context)
            except BaseException:
                opening.socket.close()
                raise
    except ConnectFailure as error:
        reason, final = str(error), error.final
    else:
        return opening
    raise ProxyFailure(f"the proxy cannot be reached: {reason}", final=final)


async def _connect_socket(host: str, port: int, uds: str | None = None) -> socket.socket:
    if uds is None:
        check_allowed(host)
    place = uds or authority_of(host, port)
    try:
        if uds is not None:
            return await connect_to(socket.AF_UNIX, uds)
        return await connect_first(await resolve(host, port))
    except (OSError, ValueError) as error:
        reason = reason_of(error)
    raise ConnectFailure(f"could not connect to {place}: {reason}")
