"""Tunnels through proxies, and failures of proxies."""

from __future__ import annotations

import socket
import sys
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from anyio.streams.tls import TLSStream
from support.proxies import proxying
from support.servers import (
    Handler,
    Peer,
    black_hole,
    closed_port,
    repeating,
    server_context,
    serving,
)

from gprochat_anyio.transport._connecting import OpeningSocket
from gprochat_anyio.transport._failures import ConnectFailure, ProxyFailure
from gprochat_anyio.transport._target import Proxy, Target

from .connecting import connected, exchanged, recorded_sockets, shown_by

KINDS = ["http", "https", "socks5"]


@pytest.mark.parametrize("site_tls", [False, True], ids=["http-site", "https-site"])
@pytest.mark.parametrize("credentials", [None, ("me", "se:cret")])
@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind(
    kind: str, credentials: tuple[str, str] | None, *, site_tls: bool
) -> None:
    proxied = proxying(
        "socks5" if kind == "socks5" else "http",
        credentials=credentials,
        tls=server_context() if kind == "https" else None,
    )
    tls = server_context() if site_tls else None
    async with serving(repeating(), tls=tls) as site, proxied as proxy:
        given = "me:se%3Acret@" if credentials else ""
        by = Proxy.from_url(f"{kind}://{given}127.0.0.1:{proxy.port}")
        target = Target("https" if site_tls else "http", "site.test", site.port, by)
        async with connected(target) as opened:
            assert len(opened.layers) == (kind == "https") + site_tls
            if target.forwarded_by is None:
                response = await exchanged(opened, b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n")
                assert response.endswith(b"\r\nok")
    if kind == "socks5":
        assert proxy.asked == [f"3 site.test {site.port}"]
    else:
        assert proxy.asked == ([f"CONNECT site.test:{site.port}"] if site_tls else [])


@pytest.mark.parametrize(("host", "kind"), [("127.0.0.1", 1), ("::1", 4), ("site.test", 3)])
async def test_socks_has_three_kinds_of_addresses(host: str, kind: int) -> None:
    try:
        async with serving(repeating(), host="::1" if kind == 4 else "127.0.0.1") as site:
            async with proxying("socks5") as proxy:
                by = Proxy.from_url(f"socks5://127.0.0.1:{proxy.port}")
                async with connected(Target("http", host, site.port, by)):
                    assert proxy.asked == [f"{kind} {host} {site.port}"]
                await site.all_ended()
    except OSError:
        pytest.skip("requires IPv6")


async def test_connect_sends_ipv6_addresses_in_brackets() -> None:
    async def handle(peer: Peer) -> None:
        asked.append((await peer.head()).head)

    asked: list[bytes] = []
    async with serving(handle) as proxy:
        with pytest.raises(ProxyFailure):
            async with connected(Target("https", "::1", 443, Proxy.from_url(proxy.url))):
                pass
    assert asked == [b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443"]


async def refused_by(
    by: Proxy, message: str, *, final: bool = False, host: str = "site.test"
) -> None:
    """Check the failure of connecting through a proxy."""
    with recorded_sockets() as made, pytest.raises(ConnectFailure, match=message) as caught:
        async with connected(Target("https", host, 443, by)):
            pass
    assert not made.still_open()
    assert caught.value.final == final
    assert "secret" not in str(caught.value)
    context = caught.value.__context__
    assert context is None or not shown_by(context, "secret")


class TestFailures:
    """The messages, and the absence of open sockets."""

    async def fails(
        self,
        handler: Handler,
        message: str,
        *,
        url: str = "http://{}",
        final: bool = False,
        host: str = "site.test",
    ) -> None:
        async with serving(handler) as proxy:
            by = Proxy.from_url(url.format(f"127.0.0.1:{proxy.port}"))
            await refused_by(by, message, final=final, host=host)
            await proxy.all_ended()

    @pytest.mark.parametrize("kind", KINDS)
    async def test_refused(self, kind: str) -> None:
        by = Proxy.from_url(f"{kind}://me:secret@127.0.0.1:{closed_port()}")
        await refused_by(by, r"^the proxy cannot be reached: .*127\.0\.0\.1:\d+: .*refused$")

    async def test_an_https_proxy_without_tls(self) -> None:
        async def handle(peer: Peer) -> None:
            await peer.received.receive()
            await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await peer.until_closed()

        await self.fails(
            handle, "the proxy cannot be reached: .*TLS handshake", url="https://me:secret@{}"
        )

    @pytest.mark.parametrize(
        ("response", "message"),
        [
            (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "refused .*: status 403"),
            (b"HTTP/1.1 302 Found\r\nLocation: http://login.test\r\n\r\n", "status 302"),
            (b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "proxy .* failed: "),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "^the proxy .* failed: .* (no|not) valid HTTP/1.1"),
            (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000, "^the proxy .* failed: .*head"),
            (b"HTTP/1.1 200 OK\r\n\r\nhello", "sent more than its response"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nhello", "sent more than its response"),
            (b"", "^the proxy .* failed: it closed the connection"),
            (b"HTTP/1.1 200", "^the proxy .* failed: it closed the connection"),
        ],
    )
    async def test_responses_to_connect(self, response: bytes, message: str) -> None:
        async def handle(peer: Peer) -> None:
            await peer.head()
            await peer.send(response)
            if len(response) > 20:
                await peer.until_closed()

        await self.fails(handle, message)

    async def test_a_response_to_connect_in_parts(self) -> None:
        async def handle(peer: Peer) -> None:
            await peer.head()
            for (
                byte
            ) in b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n":
                await peer.send(bytes([byte]))
                await checkpoint()
            await peer.received.receive()

        await self.fails(handle, "the TLS handshake failed: ")

    @pytest.mark.parametrize(
        ("responses", "message"),
        [
            ([b""], "^the proxy .* failed: it closed the connection"),
            ([b"\x05"], "^the proxy .* failed: it closed the connection"),
            ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "it is not a SOCKS5 proxy"),
            ([b"\x05\x09"], "it is not a SOCKS5 proxy"),
            ([b"\x05\xff"], "requires credentials; add them to its URL"),
            ([b"\x05\x02"], "requires credentials; add them to its URL"),
            ([b"\x05\x01"], "requires credentials; add them to its URL"),
            ([b"\x05\x00", b"\x05"], "^the proxy .* failed: it closed the connection"),
            ([b"\x05\x00", b"\x05\x01\x00\x01" + bytes(6)], "general"),
            ([b"\x05\x00", b"\x05\x05\x00\x01" + bytes(6)], "could not connect .*refused"),
            ([b"\x05\x00", b"\x05\x04\x00\x03\x04none\x00\x00"], "could not connect .*host"),
            ([b"\x05\x00", b"\x05\x77\x00\x01" + bytes(6)], "it is not a SOCKS5 proxy"),
            ([b"\x05\x00", b"\x05\x00\x00\x07\x04none\x00\x00"], "it is not a SOCKS5 proxy"),
            ([b"\x05\x00", b"\x07\x00\x00\x01" + bytes(6)], "it is not a SOCKS5 proxy"),
        ],
    )
    async def test_responses_of_socks(self, responses: list[bytes], message: str) -> None:
        async def handle(peer: Peer) -> None:
            for response in responses:
                await peer.received.receive()
                await peer.send(response)
            if len(responses[-1]) > 1:
                await peer.until_closed()

        await self.fails(handle, message, url="socks5://{}", final="credentials" in message)

    @pytest.mark.parametrize("where", ["host", "username", "password"])
    async def test_names_too_long_for_socks(self, where: str) -> None:
        long = "secret" * 50
        user, password = (long if where == part else "me" for part in ("username", "password"))
        url = f"socks5://{user}:{password}@{{}}"
        host = "x." * 200 + "test" if where == "host" else "site.test"
        await self.fails(black_hole, "to 255 bytes each", url=url, host=host, final=True)

    async def test_socks_without_its_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "socksio", None)
        message = r"pip install 'gprochat-anyio\[socks\]'"
        await self.fails(black_hole, message, url="socks5://{}", final=True)

    async def test_surplus_data_from_socks(self) -> None:
        """It counts as data from the site, which TLS rejects."""

        async def handle(peer: Peer) -> None:
            await peer.received.receive()
            await peer.send(b"\x05\x00")
            await peer.received.receive()
            await peer.send(b"\x05\x00\x00\x01" + bytes(6) + b"HTTP/1.1 200 OK\r\n\r\nevil")
            await peer.until_closed()

        await self.fails(handle, "TLS handshake failed", url="socks5://{}")

    @pytest.mark.parametrize("how", ["close_notify", "garbage"])
    async def test_an_https_proxy_that_breaks_tls(self, how: str) -> None:
        async def handle(peer: Peer) -> None:
            await peer.head()
            assert isinstance(peer.stream, TLSStream)
            if how == "garbage":
                await peer.stream.transport_stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
                await peer.until_closed()
            else:
                await peer.stream.unwrap()

        async with serving(handle, tls=server_context()) as proxy:
            by = Proxy.from_url(f"https://127.0.0.1:{proxy.port}")
            await refused_by(by, "^the proxy .* failed: it closed the connection$")
            await proxy.all_ended()


class TestOpeningSocket:
    async def test_sends_more_than_fits_into_the_buffer(self) -> None:
        sent, received = b"x" * 3_000_000, 0
        ours, theirs = socket.socketpair()
        with ours, theirs, anyio.fail_after(10):
            ours.setblocking(False)
            theirs.setblocking(False)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(OpeningSocket(ours).send, sent)
                while received < len(sent):
                    await anyio.wait_readable(theirs)
                    received += len(theirs.recv(65536))

    async def test_waits_again_after_a_spurious_event(self) -> None:
        class Spurious(socket.socket):
            calls = 0

            def recv(self, *arguments: Any) -> bytes:
                self.calls += 1
                if self.calls == 1:
                    raise BlockingIOError
                return super().recv(*arguments)

        ours, theirs = socket.socketpair()
        with Spurious(fileno=ours.detach()) as spurious, theirs, anyio.fail_after(10):
            theirs.send(b"hello")
            assert await OpeningSocket(spurious).receive() == b"hello"
