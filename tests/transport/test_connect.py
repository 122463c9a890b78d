"""Making connections: names, addresses, TLS, Unix sockets, and what can be wrong with them."""

from __future__ import annotations

import errno
import importlib
import socket
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio
import certifi
import pytest
import trustme

from gprochat_anyio.testing import NetworkForbiddenError, forbid_network
from gprochat_anyio.transport import _tls
from gprochat_anyio.transport._connecting import Opened, connect
from gprochat_anyio.transport._failures import ConnectFailure, reason_of
from gprochat_anyio.transport._target import Target

from .resolving import recorded_sockets, resolving
from .servers import (
    Peer,
    authority,
    black_hole,
    client_context,
    open_sockets,
    repeating,
    server_context,
    serving,
    unused_port,
)


@asynccontextmanager
async def connected(
    target: Target, context: ssl.SSLContext | None = None, uds: str | None = None
) -> AsyncIterator[Opened]:
    with anyio.fail_after(10):
        opened = await connect(target, ssl_context=context or client_context(), uds=uds)
        with opened.socket:
            assert opened.socket.gettimeout() == 0
            yield opened


@asynccontextmanager
async def failing(message: str, *ports: int) -> AsyncIterator[None]:
    """A block that cannot connect, says why, and leaves no socket open."""
    with recorded_sockets() as made, pytest.raises(ConnectFailure, match=message) as caught:
        yield
    assert not made.still_open()
    assert caught.value.__context__ is None
    assert "\n" not in str(caught.value)
    assert open_sockets(*ports) == 0


async def has_ipv6() -> bool:
    try:
        async with serving(black_hole, host="::1"):
            return True
    except OSError:
        return False


class TestPlain:
    async def test_by_address(self) -> None:
        async with serving(black_hole) as server:
            async with connected(Target("http", "127.0.0.1", server.port)) as opened:
                assert opened.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert opened.layers == ()
            await server.all_ended()

    async def test_by_ipv6(self) -> None:
        if not await has_ipv6():
            pytest.skip("no IPv6 here")
        async with serving(black_hole, host="::1") as server:
            for host in ("::1", "::1%1"):
                async with connected(Target("http", host, server.port)):
                    pass
            await server.all_ended()

    @pytest.mark.parametrize(
        "found", [["127.0.0.1"], ["127.0.0.2", "127.0.0.1"], ["::1", "127.0.0.1"]]
    )
    async def test_by_a_name_of_dead_and_live_addresses(self, found: list[str]) -> None:
        async with serving(black_hole) as server:
            with resolving({"site.test": found}), recorded_sockets() as made:
                async with connected(Target("http", "site.test", server.port)) as opened:
                    assert not made.still_open(opened)
                    await server.until(lambda: server.accepted == 1)
            await server.all_ended()
            assert server.accepted == 1

    async def test_by_unix_socket(self, tmp_path: Path) -> None:
        path = tmp_path / "socket"
        async with serving(black_hole, path=path) as server:
            async with connected(Target("http", "site.test", 80), uds=str(path)):
                await server.until(lambda: server.accepted == 1)
            await server.until(lambda: server.ended == 1)

    async def test_refused(self) -> None:
        port = unused_port()
        async with (
            failing(rf"^could not connect to 127\.0\.0\.1:{port}: Connection refused$"),
            connected(Target("http", "127.0.0.1", port)),
        ):
            pass

    async def test_an_address_of_ipv6_is_named_in_brackets(self) -> None:
        async with (
            failing(r"^could not connect to \[::1\]:\d+: "),
            connected(Target("http", "::1", unused_port())),
        ):
            pass

    async def test_an_address_that_the_system_refuses_at_once(self) -> None:
        async with (
            failing(r"could not connect to 255\.255\.255\.255:80: "),
            connected(Target("http", "255.255.255.255", 80)),
        ):
            pass

    async def test_connecting_to_an_address_is_a_checkpoint(self) -> None:
        for host in ("127.0.0.1", "255.255.255.255"):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await connect(Target("http", host, 80), ssl_context=None, uds=None)
            assert scope.cancelled_caught

    async def test_refused_at_all_addresses(self) -> None:
        with resolving({"site.test": ["127.0.0.1", "127.0.0.2"]}):
            async with (
                failing(r"^could not connect to site\.test:\d+: Connection refused$"),
                connected(Target("http", "site.test", unused_port())),
            ):
                pass

    async def test_unresolvable(self) -> None:
        with resolving({}):
            async with (
                failing(r"^could not connect to none\.test:80: Name or service not known$"),
                connected(Target("http", "none.test", 80)),
            ):
                pass

    @pytest.mark.parametrize(
        "host", ["x" * 64 + ".invalid", "a..invalid", "\0.invalid", "\xfc.test"]
    )
    async def test_an_invalid_name(self, host: str) -> None:
        async with failing("could not connect to "), connected(Target("http", host, 80)):
            pass

    async def test_no_such_unix_socket(self, tmp_path: Path) -> None:
        async with (
            failing(f"^could not connect to {tmp_path}/none: No such file or directory$"),
            connected(Target("http", "site.test", 80), uds=f"{tmp_path}/none"),
        ):
            pass

    async def test_a_forbidden_network(self) -> None:
        with forbid_network(), recorded_sockets() as made:
            with pytest.raises(NetworkForbiddenError):
                await connect(Target("http", "192.0.2.1", 80), ssl_context=None, uds=None)
        assert not made


@contextmanager
def speaking_first(greeting: bytes) -> Iterator[int]:
    """The port of a server, in a thread of its own, that speaks as it accepts."""
    accepted: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.sendall(greeting)
                accepted.append(connection)

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in accepted:
            connection.close()


async def test_nothing_is_lost_of_a_server_that_speaks_first() -> None:
    with speaking_first(b"hello") as port:
        for _ in range(50):
            async with connected(Target("http", "127.0.0.1", port)) as opened:
                await anyio.wait_readable(opened.socket)
                assert opened.socket.recv(100) == b"hello"


class TestTLS:
    async def test_verifies_and_names_the_host(self) -> None:
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
            pytest.skip("no IPv6 here")
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

    async def test_http2_by_a_context_that_offers_it(self) -> None:
        offering, server_side = context_of("h2", "http/1.1"), server_context("h2.test", "localhost")
        server_side.set_alpn_protocols(["h2"])
        message = r'chose HTTP/2.*\.set_alpn_protocols\(\["http/1.1"\]\)$'
        async with serving(black_hole, tls=server_side) as server:
            with pytest.raises(ConnectFailure, match=message) as caught:
                async with connected(Target("https", "localhost", server.port), offering):
                    pass
            assert caught.value.final
            await server.all_ended()

    async def test_data_that_is_hidden_behind_the_handshake(self) -> None:
        """TLS 1.2, because there the server has the last word of the handshake."""

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


def context_of(*protocols: str) -> ssl.SSLContext:
    """Return a client's context of a test's own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ECONNREFUSED, "Connect call failed ('::1', 80)"), "Connection refused"),
        (socket.gaierror(socket.EAI_NONAME, "No such name"), "No such name"),
        (ssl.SSLError(1, "[SSL] wrong version number"), "[SSL] wrong version number"),
        (OSError("All connection attempts failed"), "All connection attempts failed"),
        (UnicodeError("label too long"), "label too long"),
        (anyio.EndOfStream(), "the peer closed the connection"),
        (
            caused(anyio.BrokenResourceError(), OSError(errno.ECONNRESET, "x")),
            "Connection reset by peer",
        ),
        (
            caused(
                OSError("All connection attempts failed"),
                ExceptionGroup(
                    "several",
                    [
                        OSError(errno.ECONNREFUSED, "one"),
                        OSError(errno.ECONNREFUSED, "other"),
                        OSError(errno.ENETUNREACH, "third"),
                    ],
                ),
            ),
            "Connection refused; Network is unreachable",
        ),
    ],
)
def test_reasons_are_the_systems_words(error: BaseException, reason: str) -> None:
    assert reason_of(error) == reason


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
            assert not subjects  # a directory is looked into when a certificate comes

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


def test_the_package_has_one_public_name() -> None:
    package = importlib.import_module("gprochat_anyio.transport")
    assert package.AnyIOTransport.__name__ == "AnyIOTransport"
    with pytest.raises(AttributeError, match="has no attribute 'other'"):
        _ = package.other


def test_httpx2_stands_in_where_httpx_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "gprochat_anyio.transport._http_library"
    httpx2 = pytest.importorskip("httpx2")
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "httpx", None)
    module = importlib.import_module(name)
    assert module.httpx is httpx2
    assert module.library_of(object()) is httpx2
