"""Tunnels through proxies, on an open connection: HTTP's CONNECT, and SOCKS5."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gprochat_anyio._redaction import Hidden

from ._failures import ProtocolViolation, ProxyFailure
from ._names import authority_of
from ._response_parser import ResponseParser
from ._target import Proxy, Target

if TYPE_CHECKING:
    from ._connecting import OpeningSocket


async def open_tunnel(opening: OpeningSocket, proxy: Proxy, target: Target) -> None:
    """Open a tunnel to the target through the proxy at the other end.

    :raises ProxyFailure: If the proxy refuses, or violates its protocol.
    """
    tunnel = _socks5 if proxy.scheme == "socks5" else _http_connect
    try:
        await tunnel(opening, proxy, target)
    except ProtocolViolation as error:
        reason = str(error)
    except OSError:
        reason = "it closed the connection"
    else:
        return
    raise ProxyFailure(f"the proxy {_name_of(proxy)} failed: {reason}")


def proxy_refusal(proxy: Proxy) -> ProxyFailure:
    """Return the failure for a proxy that requires or rejects credentials: status 407, or SOCKS5's
    equivalent."""
    name = _name_of(proxy)
    if proxy.username is None:
        advice = "add them to its URL: user:password@"
        return ProxyFailure(f"the proxy {name} requires credentials; {advice}", final=True)
    return ProxyFailure(f"the proxy {name} refused the credentials in its URL", final=True)


def _name_of(proxy: Proxy) -> str:
    return authority_of(proxy.host, proxy.port)


async def _http_connect(opening: OpeningSocket, proxy: Proxy, target: Target) -> None:
    with suppress(OSError):  # a proxy that closes without reading may have responded before
        await opening.send(_connect_head(proxy, target))
    response = ResponseParser(bodiless=True)
    start = b""
    try:
        while not response.complete:
            data = await opening.receive()
            start = (start + data)[:13]
            response.feed(data)
    except (OSError, ProtocolViolation):
        if start[8:] != b" 407 ":  # status 407 is enough, even if a reset cuts the response off
            raise
    finally:
        response.release()
    if response.status == 407 or not response.complete:
        raise proxy_refusal(proxy)
    if not 200 <= response.status < 300:
        raise ProxyFailure(
            f"the proxy {_name_of(proxy)} refused to connect to the site: status {response.status}"
        )
    if response.surplus:
        raise ProtocolViolation("it sent more than its response")


def _connect_head(proxy: Proxy, target: Target) -> Hidden:
    place = authority_of(target.host, target.port).encode()
    lines = [b"CONNECT %b HTTP/1.1" % place, b"Host: %b" % place]
    if proxy.authorization is not None:
        lines.append(b"Proxy-Authorization: " + proxy.authorization)
    return Hidden(b"\r\n".join([*lines, b"", b""]))


async def _socks5(opening: OpeningSocket, proxy: Proxy, target: Target) -> None:
    try:
        from socksio import socks5  # noqa: PLC0415 - an optional dependency
        from socksio.exceptions import SOCKSError  # noqa: PLC0415
    except ImportError:
        advice = "pip install 'gprochat-anyio[socks]'"
        raise ProxyFailure(f"a SOCKS proxy needs the extra `socks`: {advice}", final=True) from None
    if any(len(part.encode()) > 255 for part in (target.host, *_credentials(proxy))):
        limit = "host names, user names and passwords to 255 bytes each"
        raise ProxyFailure(f"SOCKS5 limits {limit}", final=True)
    socks: Any = socks5.SOCKS5Connection()

    async def ask(request: Any, size: int) -> bytes:
        socks.send(request)
        del request  # a traceback would show the frame's variables
        await opening.send(Hidden(socks.data_to_send()))
        return await _receive_exactly(opening, size)

    methods = [socks5.SOCKS5AuthMethod.NO_AUTH_REQUIRED]
    if proxy.username is not None:
        methods.append(socks5.SOCKS5AuthMethod.USERNAME_PASSWORD)
    try:
        reply = socks.receive_data(await ask(socks5.SOCKS5AuthMethodsRequest(methods), 2))
        if reply.method not in methods:
            raise proxy_refusal(proxy)
        if reply.method == socks5.SOCKS5AuthMethod.USERNAME_PASSWORD:
            login = socks5.SOCKS5UsernamePasswordRequest
            encoded = map(str.encode, _credentials(proxy))
            if not socks.receive_data(await ask(login(*encoded), 2)).success:
                raise proxy_refusal(proxy)
        command = socks5.SOCKS5CommandRequest.from_address(
            socks5.SOCKS5Command.CONNECT, (target.host, target.port)
        )
        head = await ask(command, 5)
        # after the address type: an address of 4 or 16 bytes, or a length and a name
        rest = {1: 3, 4: 15}.get(head[3], head[4]) + 2
        reply = socks.receive_data(head + await _receive_exactly(opening, rest))
    except SOCKSError as error:
        raise ProtocolViolation(f"it is not a SOCKS5 proxy: {error}") from None
    if reply.reply_code != socks5.SOCKS5ReplyCode.SUCCEEDED:
        reason = reply.reply_code.name.replace("_", " ").lower()
        raise ProxyFailure(f"the proxy {_name_of(proxy)} could not connect to the site: {reason}")


def _credentials(proxy: Proxy) -> tuple[str, str]:
    return proxy.username or "", proxy.password or ""


async def _receive_exactly(opening: OpeningSocket, size: int) -> bytes:
    """Receive exactly `size` bytes, because the site's data may follow them."""
    data = b""
    while len(data) < size:
        data += await opening.receive(size - len(data))
    return data
