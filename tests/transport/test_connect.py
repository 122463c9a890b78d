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
from typing import Any

import anyio
import certifi
import pytest
import trustme
from anyio._core._eventloop import get_async_backend
from anyio.streams.tls import TLSAttribute

from gprochat_anyio.transport import _tls
from gprochat_anyio.transport._connecting import _family_of, close_now, connect
from gprochat_anyio.transport._failures import ConnectFailure, reason_of
from gprochat_anyio.transport._target import Proxy, Target, ascii_host, environment_proxy, split_url

from .servers import (
    Peer,
    black_hole,
    client_context,
    open_sockets,
    repeating,
    server_context,
    serving,
    unused_port,
)


async def connected(
    target: Target, context: ssl.SSLContext | None = None, uds: str | None = None
) -> Any:
    with anyio.fail_after(10):
        return await connect(target, ssl_context=context or client_context(), uds=uds)


@asynccontextmanager
async def failing(message: str, *ports: int) -> AsyncIterator[None]:
    """A block that can not connect, says why, and leaves no socket open."""
    with pytest.raises(ConnectFailure, match=message) as caught:
        yield
    assert caught.value.__context__ is None
    assert "\n" not in str(caught.value)
    assert open_sockets(*ports) == 0


@pytest.fixture
async def hosts(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names resolve to, instead of what DNS says."""
    known: dict[str, list[str]] = {}
    real = get_async_backend().getaddrinfo

    async def getaddrinfo(host: bytes, port: int, **options: Any) -> Any:
        if not host.endswith(b".test"):
            return await real(host, port, **options)
        if host.decode() not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (address, port, 0, 0) if ":" in address else (address, port),
            )
            for address in known[host.decode()]
        ]

    monkeypatch.setattr(get_async_backend(), "getaddrinfo", getaddrinfo)
    return known


async def has_ipv6() -> bool:
    try:
        async with serving(black_hole, host="::1"):
            return True
    except OSError:
        return False


class TestPlain:
    async def test_by_address(self) -> None:
        async with serving(black_hole) as server:
            stream = await connected(Target("http", "127.0.0.1", server.port))
            await close_now(stream)
            await server.all_ended()

    async def test_by_ipv6(self) -> None:
        if not await has_ipv6():
            pytest.skip("no IPv6 here")
        async with serving(black_hole, host="::1") as server:
            stream = await connected(Target("http", "::1", server.port))
            await close_now(stream)
            await server.all_ended()

    async def test_by_name(self, hosts: dict[str, list[str]]) -> None:
        hosts["site.test"] = ["127.0.0.1"]
        async with serving(black_hole) as server:
            await close_now(await connected(Target("http", "site.test", server.port)))
            await server.all_ended()

    @pytest.mark.parametrize("dead", ["127.0.0.2", "::1"])
    async def test_by_a_name_of_a_dead_and_a_live_address(
        self, dead: str, hosts: dict[str, list[str]]
    ) -> None:
        hosts["site.test"] = [dead, "127.0.0.1"]
        async with serving(black_hole) as server:
            await close_now(await connected(Target("http", "site.test", server.port)))
            await server.all_ended()
            assert server.accepted == 1

    async def test_by_unix_socket(self, tmp_path: Path) -> None:
        path = tmp_path / "socket"
        async with serving(black_hole, path=path) as server:
            await close_now(await connected(Target("http", "site.test", 80), uds=str(path)))
            await server.until(lambda: server.ended == 1)

    async def test_refused(self) -> None:
        port = unused_port()
        async with failing(rf"^could not connect to 127\.0\.0\.1:{port}: .*(?i:refused|failed)"):
            await connected(Target("http", "127.0.0.1", port))

    async def test_an_address_that_the_system_refuses_at_once(self) -> None:
        async with failing(r"could not connect to 255\.255\.255\.255:80: "):
            await connected(Target("http", "255.255.255.255", 80))

    async def test_connecting_to_an_address_is_a_checkpoint(self) -> None:
        for host in ("127.0.0.1", "255.255.255.255"):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await connect(Target("http", host, 80), ssl_context=None, uds=None)
            assert scope.cancelled_caught

    async def test_by_address_where_sockets_can_not_be_taken_over(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "gprochat_anyio.transport._connecting._family_of", _family_of.__wrapped__
        )
        monkeypatch.setattr("os.name", "nt")
        async with serving(black_hole) as server:
            stream = await connected(Target("http", "127.0.0.1", server.port))
            await close_now(stream)
            await server.all_ended()

    async def test_refused_at_all_addresses(self, hosts: dict[str, list[str]]) -> None:
        hosts["site.test"] = ["127.0.0.1", "127.0.0.2"]
        async with failing(r"^could not connect to site\.test:\d+: .*(?i:refused|failed)"):
            await connected(Target("http", "site.test", unused_port()))

    async def test_unresolvable(self, hosts: dict[str, list[str]]) -> None:
        async with failing("^could not connect to none.test:80: Name or service not known$"):
            await connected(Target("http", "none.test", 80))

    @pytest.mark.parametrize("host", ["x" * 64 + ".test", "a..test", "\0.test"])
    async def test_no_name_at_all(self, host: str) -> None:
        async with failing("could not connect to "):
            await connected(Target("http", host, 80))

    async def test_no_such_unix_socket(self, tmp_path: Path) -> None:
        async with failing(f"^could not connect to {tmp_path}/none: No such file or directory$"):
            await connected(Target("http", "site.test", 80), uds=f"{tmp_path}/none")


@contextmanager
def speaking_first(greeting: bytes) -> Iterator[int]:
    """The port of a server, in a thread of its own, that says its word as it accepts."""
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
    with speaking_first(b"hello") as port, anyio.fail_after(10):
        for _ in range(50):
            stream = await connected(Target("http", "127.0.0.1", port))
            assert await stream.receive() == b"hello"
            await close_now(stream)


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
            stream = await connected(Target("https", "localhost", server.port), own)
            assert stream.extra(TLSAttribute.tls_version) == "TLSv1.3"
            await close_now(stream)
            await server.all_ended()
        assert names == ["localhost"]

    async def test_by_address(self) -> None:
        async with serving(black_hole, tls=server_context()) as server:
            await close_now(await connected(Target("https", "127.0.0.1", server.port)))
            await server.all_ended()

    async def test_by_ipv6(self) -> None:
        if not await has_ipv6():
            pytest.skip("no IPv6 here")
        async with serving(black_hole, host="::1", tls=server_context()) as server:
            await close_now(await connected(Target("https", "::1", server.port)))
            await server.all_ended()

    async def test_on_a_unix_socket(self, tmp_path: Path) -> None:
        path = tmp_path / "socket"
        async with serving(black_hole, path=path, tls=server_context()) as server:
            stream = await connected(Target("https", "site.test", 443), uds=str(path))
            await close_now(stream)
            await server.until(lambda: server.ended == 1)

    async def test_an_unknown_authority(self) -> None:
        async with (
            serving(black_hole, tls=server_context()) as server,
            failing("not valid: .*(issuer|self.signed).* set SSL_CERT_FILE", server.port),
        ):
            await connected(Target("https", "127.0.0.1", server.port), ssl.create_default_context())

    async def test_another_host(self) -> None:
        async with (
            serving(black_hole, tls=server_context("other.test")) as server,
            failing(
                "^could not connect to localhost: its certificate is not valid: Hostname mismatch"
            ),
        ):
            await connected(Target("https", "localhost", server.port))

    async def test_a_plain_port(self) -> None:
        async def handle(peer: Peer) -> None:
            await peer.received.receive()
            await peer.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            await peer.until_closed()

        async with (
            serving(handle) as server,
            failing("the TLS handshake failed: .*(?i:wrong.version|record)", server.port),
        ):
            await connected(Target("https", "127.0.0.1", server.port))

    @pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
    async def test_a_peer_that_leaves_within_the_handshake(self, *, reset: bool) -> None:
        async def handle(peer: Peer) -> None:
            await peer.received.receive()
            if reset:
                peer.reset()

        async with (
            serving(handle) as server,
            failing("could not connect to 127.0.0.1: the TLS handshake failed: .", server.port),
        ):
            await connected(Target("https", "127.0.0.1", server.port))

    async def test_no_version_in_common(self) -> None:
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        new = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        new.minimum_version = ssl.TLSVersion.TLSv1_3
        trustme.CA().issue_cert("localhost").configure_cert(new)
        async with (
            serving(black_hole, tls=new) as server,
            failing("the TLS handshake failed: .", server.port),
        ):
            await connected(Target("https", "127.0.0.1", server.port), old)


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
                stream = await connect(
                    Target("https", "localhost", server.port), ssl_context=None, uds=None
                )
            assert stream.extra(TLSAttribute.alpn_protocol) == "http/1.1"
            await close_now(stream)
            await server.all_ended()


class TestTargets:
    @pytest.mark.parametrize(
        ("target", "authority"),
        [
            (Target("http", "site.test", 80), "site.test"),
            (Target("http", "site.test", 443), "site.test:443"),
            (Target("https", "site.test", 443), "site.test"),
            (Target("https", "::1", 443), "[::1]"),
            (Target("https", "::1", 8443), "[::1]:8443"),
        ],
    )
    def test_authority(self, target: Target, authority: str) -> None:
        assert target.authority == authority

    @pytest.mark.parametrize(
        ("url", "scheme", "host", "port"),
        [
            ("http://proxy.test", "http", "proxy.test", 80),
            ("HTTP://Proxy.Test:3128/", "http", "proxy.test", 3128),
            ("https://proxy.test", "https", "proxy.test", 443),
            ("socks5://[::1]", "socks5", "::1", 1080),
            ("socks5h://proxy.test:9", "socks5", "proxy.test", 9),
        ],
    )
    def test_a_proxys_url(self, url: str, scheme: str, host: str, port: int) -> None:
        proxy = Proxy.from_url(url)
        assert (proxy.scheme, proxy.host, proxy.port) == (scheme, host, port)
        assert (proxy.username, proxy.password, proxy.authorization) == (None, None, None)

    @pytest.mark.parametrize(
        ("credentials", "username", "password", "authorization"),
        [
            ("me:secret", "me", "secret", b"Basic bWU6c2VjcmV0"),
            ("me", "me", None, b"Basic bWU6"),
            ("m%40e:se%3Acret", "m@e", "se:cret", b"Basic bUBlOnNlOmNyZXQ="),
            (":", "", "", b"Basic Og=="),
        ],
    )
    def test_a_proxys_credentials(
        self, credentials: str, username: str, password: str | None, authorization: bytes
    ) -> None:
        proxy = Proxy.from_url(f"http://{credentials}@proxy.test")
        assert (proxy.username, proxy.password) == (username, password)
        assert proxy.authorization == authorization
        assert "secret" not in repr(proxy)

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "proxy.test:80",
            "//proxy.test",
            "ftp://me:secret@proxy.test",
            "http://",
            "http://me:secret@",
            "http://me:secret@proxy.test:port",
            "http://me:secret@proxy.test:99999",
            "http://me:secret@[::1",
            "http://me:secret@proxy test",
            "http://me:secret@proxy.test\n",
            None,
            b"http://proxy.test",
        ],
    )
    def test_what_is_no_proxys_url(self, url: Any) -> None:
        with pytest.raises(ValueError, match=r"^proxy must be an absolute URL") as caught:
            Proxy.from_url(url)
        assert "secret" not in str(caught.value)

    def test_who_forwards(self) -> None:
        for scheme, proxy, forwards in [
            ("http", "http", True),
            ("http", "https", True),
            ("http", "socks5", False),
            ("https", "http", False),
            ("https", "https", False),
            ("https", "socks5", False),
        ]:
            by = Proxy.from_url(f"{proxy}://proxy.test")
            assert Target(scheme, "site.test", 80, by).forwarded_by == (by if forwards else None)
        assert Target("http", "site.test", 80).forwarded_by is None

    def test_split_url_gives_the_port(self) -> None:
        assert split_url("url", "https://site.test/x", ("http", "https"))[1] == 443
        assert split_url("url", "http://site.test:0/", ("http",))[1] == 0

    def test_ascii_host(self) -> None:
        assert ascii_host("url", "site.test") == "site.test"
        assert ascii_host("url", "b\xfccher.test") == "xn--bcher-kva.test"
        with pytest.raises(ValueError, match=r"^url has a host that is no valid name"):
            ascii_host("url", "\u2603\ufffd.test")


class TestEnvironment:
    @pytest.fixture(autouse=True)
    def clean(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)

    @pytest.mark.parametrize(
        ("variables", "proxy"),
        [
            ({}, None),
            ({"HTTP_PROXY": "http://one.test:1"}, "one.test"),
            ({"http_proxy": "http://one.test:1"}, "one.test"),
            ({"http_proxy": "one.test:1"}, "one.test"),
            ({"HTTPS_PROXY": "http://one.test:1"}, None),
            ({"ALL_PROXY": "socks5://one.test:1"}, "one.test"),
            ({"ALL_PROXY": "http://all.test:1", "HTTP_PROXY": "http://one.test:1"}, "one.test"),
            ({"HTTP_PROXY": ""}, None),
            ({"HTTP_PROXY": "http://one.test:1", "NO_PROXY": "site.test"}, None),
            ({"HTTP_PROXY": "http://one.test:1", "NO_PROXY": ".test"}, None),
            ({"HTTP_PROXY": "http://one.test:1", "NO_PROXY": "*"}, None),
            ({"HTTP_PROXY": "http://one.test:1", "NO_PROXY": "site.test:80"}, None),
            ({"HTTP_PROXY": "http://one.test:1", "NO_PROXY": "site.test:81"}, "one.test"),
            ({"HTTP_PROXY": "http://one.test:1", "NO_PROXY": "other, test.site"}, "one.test"),
        ],
    )
    def test_names_a_proxy(
        self, variables: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        found = environment_proxy("http", "site.test", 80)
        assert (found and found.host) == proxy

    def test_must_be_a_proxys_url(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "ftp://me:secret@one.test")
        with pytest.raises(ValueError, match="proxy must be an absolute URL") as caught:
            environment_proxy("https", "site.test", 443)
        assert "secret" not in str(caught.value)


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
