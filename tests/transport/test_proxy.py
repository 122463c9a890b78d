"""By a proxy: tunnels and forwarding, with what proxies get wrong."""

from __future__ import annotations

import sys
import traceback
from base64 import b64encode
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint
from http_libraries import httpx
from scripted import reply

import gprochat_anyio
from gprochat_anyio import Client, Retry, SiteConnectionError, Timeouts
from gprochat_anyio.testing import at_every_checkpoint
from gprochat_anyio.transport import AnyIOTransport
from gprochat_anyio.transport._failures import ConnectFailure, ProxyFailure
from gprochat_anyio.transport._pool import Pool
from gprochat_anyio.transport._target import Proxy, Target

from .proxies import Credentials, proxying
from .servers import (
    Handler,
    Peer,
    black_hole,
    client_context,
    open_sockets,
    repeating,
    server_context,
    serving,
    unused_port,
)

KINDS = ["http", "https", "socks5"]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("site_tls", [False, True], ids=["http-site", "https-site"])
@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    async def test_by_the_clients_argument(self, kind: str, *, site_tls: bool) -> None:
        await self.ask(kind, site_tls=site_tls)

    async def test_with_credentials(self, kind: str, *, site_tls: bool) -> None:
        await self.ask(kind, site_tls=site_tls, credentials=("me", "se:cret"))

    @pytest.mark.parametrize("variable", ["own", "ALL_PROXY", "all_proxy"])
    async def test_by_the_environment(
        self, kind: str, *, site_tls: bool, variable: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if variable == "own":
            variable = "HTTPS_PROXY" if site_tls else "HTTP_PROXY"
        await self.ask(kind, site_tls=site_tls, variable=(monkeypatch, variable))

    async def ask(
        self,
        kind: str,
        *,
        site_tls: bool,
        credentials: Credentials | None = None,
        variable: tuple[pytest.MonkeyPatch, str] | None = None,
    ) -> None:
        proxied = proxying(
            "socks5" if kind == "socks5" else "http",
            credentials=credentials,
            tls=server_context() if kind == "https" else None,
        )
        tls = server_context() if site_tls else None
        with anyio.fail_after(10):
            async with serving(repeating(reply("Hello", "!")), tls=tls) as site, proxied as proxy:
                given = "me:se%3Acret@" if credentials else ""
                url = f"{kind}://{given}127.0.0.1:{proxy.port}"
                if variable is not None:
                    monkeypatch, name = variable
                    monkeypatch.setenv(name, url)
                client = Client(
                    f"{'https' if site_tls else 'http'}://site.test:{site.port}",
                    proxy=None if variable else url,
                    ssl_context=client_context(),
                )
                async with client:
                    for _ in range(2):
                        assert (await client.ask("Hi")).text == "Hello!"
                    assert site.accepted == 1 or kind != "socks5"
                assert open_sockets(proxy.port) == 0
        if kind == "socks5":
            assert proxy.asked == [f"3 site.test {site.port}"]
        elif site_tls:
            assert proxy.asked == [f"CONNECT site.test:{site.port}"]
        else:
            assert proxy.asked == [f"POST http://site.test:{site.port}/api/generate"] * 2

    async def test_under_httpx(self, kind: str, *, site_tls: bool) -> None:
        proxied = proxying(
            "socks5" if kind == "socks5" else "http",
            credentials=("me", "secret"),
            tls=server_context() if kind == "https" else None,
        )
        tls = server_context() if site_tls else None
        with anyio.fail_after(10):
            async with serving(repeating(), tls=tls) as site, proxied as proxy:
                transport = AnyIOTransport(
                    proxy=f"{kind}://me:secret@127.0.0.1:{proxy.port}",
                    ssl_context=client_context(),
                )
                async with httpx.AsyncClient(transport=transport) as client:
                    scheme = "https" if site_tls else "http"
                    for _ in range(2):
                        got = await client.get(f"{scheme}://site.test:{site.port}/path?query")
                        assert got.text == "ok"
        if not site_tls and kind != "socks5":
            assert proxy.asked == [f"GET http://site.test:{site.port}/path?query"] * 2


async def test_trust_env_false_passes_the_environments_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{unused_port()}")
    with anyio.fail_after(10):
        async with serving(repeating(reply("Hello"))) as site:
            async with Client(site.url, trust_env=False) as client:
                assert (await client.ask("Hi")).text == "Hello"
            async with Client(site.url, retry=Retry(attempts=1)) as client:
                with pytest.raises(SiteConnectionError, match="the proxy can not be reached"):
                    await client.ask("Hi")


async def test_no_proxy_passes_it_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{unused_port()}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with anyio.fail_after(10):
        async with serving(repeating(reply("Hello"))) as site, Client(site.url) as client:
            assert (await client.ask("Hi")).text == "Hello"


@pytest.mark.parametrize(("host", "kind"), [("127.0.0.1", 1), ("::1", 4), ("site.test", 3)])
async def test_socks_has_three_kinds_of_addresses(host: str, kind: int) -> None:
    try:
        async with serving(repeating(), host="::1" if kind == 4 else "127.0.0.1") as site:
            async with proxying("socks5") as proxy:
                pool = Pool()
                by = Proxy.from_url(f"socks5://127.0.0.1:{proxy.port}")
                with anyio.fail_after(10):
                    connection = await pool.acquire(
                        Target("http", host, site.port, by), lambda _: None
                    )
                    assert proxy.asked == [f"{kind} {host} {site.port}"]
                    await pool.discard(connection)
                await site.all_ended()
    except OSError:
        pytest.skip("no IPv6 here")


async def test_connect_names_addresses_of_ipv6_in_brackets() -> None:
    async def handle(peer: Peer) -> None:
        asked.append((await peer.head()).head)

    asked: list[bytes] = []
    async with serving(handle) as proxy:
        with pytest.raises(ProxyFailure), anyio.fail_after(10):
            by = Proxy.from_url(proxy.url)
            await Pool().acquire(Target("https", "::1", 443, by), lambda _: None)
    assert asked == [b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443"]


class TestFailures:
    """What is said, and that nothing is left open."""

    async def fails(
        self, handler: Handler, message: str, *, url: str = "http://{}", scheme: str = "https"
    ) -> None:
        with anyio.fail_after(10):
            async with serving(handler) as proxy:
                by = Proxy.from_url(url.format(f"127.0.0.1:{proxy.port}"))
                pool = Pool(max_connections=1, ssl_context=client_context())
                with pytest.raises(ConnectFailure, match=message) as caught:
                    await pool.acquire(Target(scheme, "site.test", 443, by), lambda _: None)
                assert open_sockets(proxy.port) == 0
                assert pool._free == 1
                assert "secret" not in str(caught.value)
                await proxy.all_ended()

    @pytest.mark.parametrize("kind", KINDS)
    async def test_refused(self, kind: str) -> None:
        by = Proxy.from_url(f"{kind}://me:secret@127.0.0.1:{unused_port()}")
        with pytest.raises(ProxyFailure, match=r"the proxy can not be reached: .*127\.0\.0\.1:"):
            await Pool().acquire(Target("https", "site.test", 443, by), lambda _: None)

    async def test_no_tls_of_an_https_proxy(self) -> None:
        async def handle(peer: Peer) -> None:
            await peer.received.receive()
            await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await peer.until_closed()

        await self.fails(
            handle, "the proxy can not be reached: .*TLS handshake", url="https://me:secret@{}"
        )

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic\r\n\r\n", "asks for credentials; put"),
            (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "refused .*: status 403"),
            (b"HTTP/1.1 302 Found\r\nLocation: http://login.test\r\n\r\n", "status 302"),
            (b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "proxy failed: "),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "the proxy failed: .* no valid HTTP/1.1"),
            (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000, "the proxy failed: .*head"),
            (b"HTTP/1.1 200 OK\r\n\r\nhello", "sent more than its answer"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nhello", "sent more than its answer"),
            (b"", "the proxy failed: it closed the connection"),
            (b"HTTP/1.1 200", "the proxy failed: it closed the connection"),
        ],
    )
    async def test_answers_to_connect(self, answer: bytes, message: str) -> None:
        async def handle(peer: Peer) -> None:
            await peer.head()
            await peer.send(answer)
            if len(answer) > 20:
                await peer.until_closed()

        await self.fails(handle, message)

    async def test_an_answer_to_connect_in_parts(self) -> None:
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
        ("answers", "message"),
        [
            ([b""], "the proxy failed: it closed the connection"),
            ([b"\x05"], "the proxy failed: it closed the connection"),
            ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "it is no SOCKS5 proxy"),
            ([b"\x05\x09"], "it is no SOCKS5 proxy"),
            ([b"\x05\xff"], "asks for credentials; put them into its URL"),
            ([b"\x05\x02"], "asks for credentials; put them into its URL"),
            ([b"\x05\x01"], "asks for credentials; put them into its URL"),
            ([b"\x05\x00", b"\x05"], "the proxy failed: it closed the connection"),
            ([b"\x05\x00", b"\x05\x01\x00\x01" + bytes(6)], "general"),
            ([b"\x05\x00", b"\x05\x05\x00\x01" + bytes(6)], "could not connect .*refused"),
            ([b"\x05\x00", b"\x05\x04\x00\x03\x04none\x00\x00"], "could not connect .*host"),
            ([b"\x05\x00", b"\x05\x77\x00\x01" + bytes(6)], "it is no SOCKS5 proxy"),
            ([b"\x05\x00", b"\x05\x00\x00\x07\x04none\x00\x00"], "it is no SOCKS5 proxy"),
            ([b"\x05\x00", b"\x07\x00\x00\x01" + bytes(6)], "it is no SOCKS5 proxy"),
        ],
    )
    async def test_answers_of_socks(self, answers: list[bytes], message: str) -> None:
        async def handle(peer: Peer) -> None:
            for answer in answers:
                await peer.received.receive()
                await peer.send(answer)
            if len(answers[-1]) > 1:
                await peer.until_closed()

        await self.fails(handle, message, url="socks5://{}")

    @pytest.mark.parametrize("credentials", ["me:wrong-secret", "me", "you:secret"])
    async def test_credentials_that_socks_refuses(self, credentials: str) -> None:
        async with proxying("socks5", credentials=("me", "secret")) as proxy:
            await self.refused_by(proxy.port, f"socks5://{credentials}@", "refused the credentials")

    async def test_credentials_that_socks_misses(self) -> None:
        async with proxying("socks5", credentials=("me", "secret")) as proxy:
            await self.refused_by(proxy.port, "socks5://", "asks for credentials")

    async def test_credentials_that_are_too_long_for_socks(self) -> None:
        async with proxying("socks5", credentials=("me", "secret")) as proxy:
            url = f"socks5://me:{'secret' * 50}@"
            await self.refused_by(proxy.port, url, "at most 255 bytes")

    async def test_a_name_that_is_too_long_for_socks(self) -> None:
        async with proxying("socks5") as proxy:
            by = Proxy.from_url(f"socks5://127.0.0.1:{proxy.port}")
            pool = Pool(max_connections=1)
            with pytest.raises(ProxyFailure, match="at most 255 bytes"), anyio.fail_after(10):
                await pool.acquire(Target("http", "x." * 200 + "test", 80, by), lambda _: None)
            assert open_sockets(proxy.port) == 0

    async def refused_by(self, port: int, url: str, message: str) -> None:
        pool = Pool(max_connections=1)
        by = Proxy.from_url(f"{url}127.0.0.1:{port}")
        with pytest.raises(ProxyFailure, match=message) as caught, anyio.fail_after(10):
            await pool.acquire(Target("http", "site.test", 80, by), lambda _: None)
        assert "secret" not in str(caught.value)
        assert open_sockets(port) == 0
        assert pool._free == 1

    async def test_socks_without_its_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "socksio", None)
        await self.fails(black_hole, r"pip install 'gprochat-anyio\[socks\]'", url="socks5://{}")

    async def test_more_than_its_answer_from_socks(self) -> None:
        """It can only pass for what the site says, which TLS does not let through."""

        async def handle(peer: Peer) -> None:
            await peer.received.receive()
            await peer.send(b"\x05\x00")
            await peer.received.receive()
            await peer.send(b"\x05\x00\x00\x01" + bytes(6) + b"HTTP/1.1 200 OK\r\n\r\nevil")
            await peer.until_closed()

        await self.fails(handle, "TLS handshake failed", url="socks5://{}")

    async def test_forwarding_that_wants_credentials(self) -> None:
        async with proxying(credentials=("me", "secret")) as proxy:
            transport = AnyIOTransport(proxy=f"http://127.0.0.1:{proxy.port}")
            async with httpx.AsyncClient(transport=transport) as client:
                got = await client.get("http://site.test/")
                assert got.status_code == 407

    @pytest.mark.parametrize("kind", KINDS)
    async def test_stalls(self, kind: str) -> None:
        with anyio.fail_after(10):
            async with serving(black_hole) as proxy:
                client = Client(
                    "https://site.test",
                    proxy=f"{kind}://127.0.0.1:{proxy.port}",
                    timeouts=Timeouts(connect=0.05),
                    retry=Retry(attempts=1),
                )
                async with client:
                    with pytest.raises(TimeoutError) as caught:
                        await client.ask("Hi")
                    assert caught.value.phase == "connect"  # type: ignore[attr-defined]
                    assert open_sockets(proxy.port) == 0
                await proxy.all_ended()


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_a_cancellation_holds_no_credentials(kind: str) -> None:
    secret = "canary-of-the-proxy"
    cancelled: list[BaseException] = []

    async def once() -> None:
        scheme = "http" if kind == "http" else "socks5"
        try:
            async with Client(
                f"https://site.test:{site.port}",
                proxy=f"{scheme}://me:{secret}@127.0.0.1:{proxy.port}",
                ssl_context=client_context(),
            ) as client:
                assert (await client.ask("Hi")).text == "ok"
        except BaseException as error:
            cancelled.append(error)
            raise

    with anyio.fail_after(20):
        async with (
            proxying(kind, credentials=("me", secret)) as proxy,
            serving(repeating(), tls=server_context()) as site,
        ):
            for cancel in at_every_checkpoint():
                await cancel(once)
    shown = [
        repr(frame.f_locals)
        for error in cancelled
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if Path(gprochat_anyio.__file__).parent in Path(frame.f_code.co_filename).parents
    ]
    assert any("ssl_context" in text for text in shown)  # connecting was reached
    encoded = b64encode(f"me:{secret}".encode()).decode()
    assert not [text for text in shown if secret in text or encoded in text]
