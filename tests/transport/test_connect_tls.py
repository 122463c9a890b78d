"""Connecting with TLS: verification, versions, and peers that break the handshake."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import anyio
import certifi
import pytest
import trustme
from support.servers import (
    Peer,
    black_hole,
    repeating,
    server_context,
    serving,
)

from gprochat_anyio.transport import _tls
from gprochat_anyio.transport._connecting import connect
from gprochat_anyio.transport._failures import ConnectFailure
from gprochat_anyio.transport._target import Target

from .connecting import connected, context_of, failing, has_ipv6


class TestTLS:
    async def test_verifies_and_sends_the_host(self) -> None:
        names: list[str | None] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trusted = trustme.CA()
        trusted.issue_cert("localhost").configure_cert(context)
        context.sni_callback = lambda _, name, __: names.append(name)
        own = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusted.configure_trust(own)
        async with serving(repeating(), tls=context) as server:
            async with connected(Target("https", "localhost", server.port), own) as opened:
                (layer,) = opened.layers
                assert layer.ssl_object.version() == "TLSv1.3"
            await server.all_ended()
        assert names == ["localhost"]

    async def test_by_address(self) -> None:
        async with serving(black_hole, tls=server_context()) as server:
            async with connected(Target("https", "127.0.0.1", server.port)):
                pass
            await server.all_ended()

    async def test_by_ipv6(self) -> None:
        if not await has_ipv6():
            pytest.skip("requires IPv6")
        async with serving(black_hole, host="::1", tls=server_context()) as server:
            for host in ("::1", "::1%1"):
                async with connected(Target("https", host, server.port)):
                    pass
            await server.all_ended()

    async def test_on_a_unix_socket(self, tmp_path: Path) -> None:
        path = tmp_path / "socket"
        async with serving(black_hole, path=path, tls=server_context()) as server:
            async with connected(Target("https", "site.test", 443), uds=str(path)):
                pass
            await server.until(lambda: server.ended == 1)

    async def test_an_unknown_authority(self) -> None:
        async with (
            serving(black_hole, tls=server_context()) as server,
            failing("not valid: .*(issuer|self.signed).* set SSL_CERT_FILE", server.port),
            connected(Target("https", "127.0.0.1", server.port), ssl.create_default_context()),
        ):
            pass

    async def test_another_host(self) -> None:
        async with (
            serving(black_hole, tls=server_context("other.test")) as server,
            failing(
                "^could not connect to localhost: its certificate is not valid: Hostname mismatch"
            ),
            connected(Target("https", "localhost", server.port)),
        ):
            pass

    async def test_a_plain_port(self) -> None:
        async def handle(peer: Peer) -> None:
            await peer.received.receive()
            await peer.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            await peer.until_closed()

        async with (
            serving(handle) as server,
            failing("the TLS handshake failed: .*(?i:wrong.version|record)", server.port),
            connected(Target("https", "127.0.0.1", server.port)),
        ):
            pass

    @pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
    async def test_a_peer_that_leaves_within_the_handshake(self, *, reset: bool) -> None:
        async def handle(peer: Peer) -> None:
            await peer.received.receive()
            if reset:
                peer.reset()

        async with (
            serving(handle) as server,
            failing("could not connect to 127.0.0.1: the TLS handshake failed: .", server.port),
            connected(Target("https", "127.0.0.1", server.port)),
        ):
            pass

    async def test_no_version_in_common(self) -> None:
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        new = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        new.minimum_version = ssl.TLSVersion.TLSv1_3
        trustme.CA().issue_cert("localhost").configure_cert(new)
        async with (
            serving(black_hole, tls=new) as server,
            failing("the TLS handshake failed: .", server.port),
            connected(Target("https", "127.0.0.1", server.port), old),
        ):
            pass

    async def test_http2_with_a_context_that_offers_it(self) -> None:
        offering, server_side = context_of("h2", "http/1.1"), server_context("h2.test", "localhost")
        server_side.set_alpn_protocols(["h2"])
        message = r'chose HTTP/2.*\.set_alpn_protocols\(\["http/1.1"\]\)$'
        async with serving(black_hole, tls=server_side) as server:
            with pytest.raises(ConnectFailure, match=message) as caught:
                async with connected(Target("https", "localhost", server.port), offering):
                    pass
            assert caught.value.final
            await server.all_ended()

    async def test_data_sent_with_the_handshake(self) -> None:
        """With TLS 1.2, where the server sends the last message of the handshake."""

        async def handle(peer: Peer) -> None:
            await peer.send(b"early")
            await peer.until_closed()

        old = context_of()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        async with serving(handle, tls=server_context()) as server:
            async with connected(Target("https", "localhost", server.port), old) as opened:
                data = opened.layers[-1].decrypt(b"")
                while data != b"early":
                    await anyio.wait_readable(opened.socket)
                    data += opened.layers[-1].decrypt(opened.socket.recv(65536))
            await server.all_ended()


class TestDefaultContext:
    @pytest.fixture(autouse=True)
    def fresh(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
            monkeypatch.delenv(name, raising=False)
        _tls.default_ssl_context.cache_clear()
        yield
        _tls.default_ssl_context.cache_clear()

    def test_is_shared_and_verifies(self) -> None:
        context = _tls.default_ssl_context()
        assert context is _tls.default_ssl_context()
        assert context.check_hostname
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.get_ca_certs()

    @pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
    async def test_takes_the_authorities_of_the_environment(
        self, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        authority = trustme.CA()
        pem = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(pem))
        monkeypatch.setenv(variable, str(pem if variable.endswith("FILE") else tmp_path))
        context = _tls.default_ssl_context()
        subjects = [dict(x[0] for x in ca["subject"]) for ca in context.get_ca_certs()]  # type: ignore[misc]
        if variable.endswith("FILE"):
            assert len(subjects) == 1
        else:
            assert not subjects  # a directory is read when a certificate arrives

    async def test_is_used_when_there_is_no_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setattr(certifi, "where", lambda: str(tmp_path / "ca.pem"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        context.set_alpn_protocols(["h2", "http/1.1"])
        async with serving(black_hole, tls=context) as server:
            with anyio.fail_after(10):
                opened = await connect(
                    Target("https", "localhost", server.port), ssl_context=None, uds=None
                )
            with opened.socket:
                (layer,) = opened.layers
                assert layer.ssl_object.selected_alpn_protocol() == "http/1.1"
            await server.all_ended()
