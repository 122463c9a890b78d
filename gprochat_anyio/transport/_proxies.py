"""Tunnels through proxies: HTTP's CONNECT and SOCKS5, on a connection that is already made."""

from __future__ import annotations

from typing import Any

import anyio
from anyio.abc import ByteStream
from anyio.streams.buffered import BufferedByteReceiveStream

from gprochat_anyio._redaction import Hidden

from ._failures import ConnectFailure, ProtocolViolation, ProxyFailure
from ._parser import AnswerParser
from ._target import Proxy, Target

_BROKEN = (OSError, anyio.BrokenResourceError, anyio.EndOfStream, anyio.IncompleteRead)


async def open_tunnel(stream: ByteStream, target: Target) -> None:
    """Ask the target's proxy, at the other end of the stream, to relay bytes to the target.

    :raises ProxyFailure: when it refuses
    """
    proxy = target.proxy
    assert proxy is not None
    try:
        if proxy.scheme == "socks5":
            await _socks5(stream, proxy, target)
        else:
            await _http_connect(stream, proxy, target)
    except ProtocolViolation as error:
        reason = str(error)
    except _BROKEN:
        reason = "it closed the connection"
    else:
        return
    raise ProxyFailure(f"the proxy failed: {reason}")


async def _http_connect(stream: ByteStream, proxy: Proxy, target: Target) -> None:
    await stream.send(_connect_head(proxy, target))
    answer = AnswerParser(bodiless=True)
    try:
        while not answer.complete:
            answer.feed(await stream.receive())
    finally:
        answer.release()
    if answer.status == 407:
        raise ProxyFailure("the proxy asks for credentials; put them into its URL: user:password@")
    if not 200 <= answer.status < 300:
        raise ProxyFailure(f"the proxy refused to connect to the site: status {answer.status}")
    if answer.surplus:
        raise ProtocolViolation("it sent more than its answer")


def _connect_head(proxy: Proxy, target: Target) -> Hidden:
    host = f"[{target.host}]" if ":" in target.host else target.host
    place = f"{host}:{target.port}".encode()
    lines = [b"CONNECT %b HTTP/1.1" % place, b"Host: %b" % place]
    if proxy.authorization is not None:
        lines.append(b"Proxy-Authorization: " + proxy.authorization)
    return Hidden(b"\r\n".join([*lines, b"", b""]))


async def _socks5(stream: ByteStream, proxy: Proxy, target: Target) -> None:
    try:
        from socksio import socks5  # noqa: PLC0415 - an extra
        from socksio.exceptions import SOCKSError  # noqa: PLC0415
    except ImportError:
        raise ConnectFailure(
            "a SOCKS proxy needs the extra `socks`: pip install 'gprochat-anyio[socks]'"
        ) from None
    socks: Any = socks5.SOCKS5Connection()
    received = BufferedByteReceiveStream(stream)

    async def ask(request: Any, size: int) -> bytes:
        socks.send(request)
        del request  # a traceback shows what a frame holds
        await stream.send(Hidden(socks.data_to_send()))
        return await received.receive_exactly(size)

    methods = [socks5.SOCKS5AuthMethod.NO_AUTH_REQUIRED]
    if proxy.username is not None:
        methods.append(socks5.SOCKS5AuthMethod.USERNAME_PASSWORD)
    try:
        reply = socks.receive_data(await ask(socks5.SOCKS5AuthMethodsRequest(methods), 2))
        asked = reply.method == socks5.SOCKS5AuthMethod.USERNAME_PASSWORD
        if asked and proxy.username is not None:
            reply = socks.receive_data(
                await ask(
                    socks5.SOCKS5UsernamePasswordRequest(
                        proxy.username.encode(), (proxy.password or "").encode()
                    ),
                    2,
                )
            )
            if not reply.success:
                raise ProxyFailure("the proxy refused the credentials in its URL")
        elif reply.method != socks5.SOCKS5AuthMethod.NO_AUTH_REQUIRED:
            raise ProxyFailure("the proxy asks for credentials; put them into its URL")
        command = socks5.SOCKS5CommandRequest.from_address(
            socks5.SOCKS5Command.CONNECT, (target.host, target.port)
        )
        head = await ask(command, 5)
        # what follows the address type: an address of 4 or 16 bytes, or a name after its length
        rest = {1: 3, 4: 15}.get(head[3], head[4]) + 2
        reply = socks.receive_data(head + await received.receive_exactly(rest))
    except SOCKSError as error:
        raise ProtocolViolation(f"it is no SOCKS5 proxy: {error}") from None
    except OverflowError:
        raise ProxyFailure(
            "SOCKS5 takes at most 255 bytes of a host's name, and of credentials"
        ) from None
    if reply.reply_code != socks5.SOCKS5ReplyCode.SUCCEEDED:
        reason = reply.reply_code.name.replace("_", " ").lower()
        raise ProxyFailure(f"the proxy could not connect to the site: {reason}")
