"""Clients with proxies: tunnels, forwarding, and failures of proxies."""

from __future__ import annotations

import traceback
from base64 import b64encode
from pathlib import Path

import anyio
import pytest
from support.http_libraries import httpx
from support.proxies import Credentials, proxying
from support.scripted import reply
from support.servers import (
    black_hole,
    client_context,
    closed_port,
    open_sockets,
    repeating,
    server_context,
    serving,
)

import gprochat_anyio
from gprochat_anyio import Client, Retry, SiteConnectionError, Timeouts
from gprochat_anyio.testing import at_every_checkpoint
from gprochat_anyio.transport import AnyIOTransport

KINDS = ["http", "https", "socks5"]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("site_tls", [False, True], ids=["http-site", "https-site"])
@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    async def test_given_to_the_client(self, kind: str, *, site_tls: bool) -> None:
        await self.ask(kind, site_tls=site_tls)

    async def test_with_credentials(self, kind: str, *, site_tls: bool) -> None:
        await self.ask(kind, site_tls=site_tls, credentials=("me", "se:cret"))

    @pytest.mark.parametrize("variable", ["own", "ALL_PROXY", "all_proxy"])
    async def test_given_by_the_environment(
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


async def test_trust_env_false_ignores_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{closed_port()}")
    with anyio.fail_after(10):
        async with serving(repeating(reply("Hello"))) as site:
            async with Client(site.url, trust_env=False) as client:
                assert (await client.ask("Hi")).text == "Hello"
            async with Client(site.url, retry=Retry(attempts=1)) as client:
                with pytest.raises(SiteConnectionError, match="the proxy cannot be reached"):
                    await client.ask("Hi")


async def test_no_proxy_bypasses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with anyio.fail_after(10):
        async with serving(repeating(reply("Hello"))) as site, Client(site.url) as client:
            assert (await client.ask("Hi")).text == "Hello"


async def test_forwarding_that_requires_credentials() -> None:
    async with proxying(credentials=("me", "secret")) as proxy:
        transport = AnyIOTransport(proxy=f"http://127.0.0.1:{proxy.port}")
        async with httpx.AsyncClient(transport=transport) as client:
            got = await client.get("http://site.test/")
            assert got.status_code == 407


@pytest.mark.parametrize("kind", KINDS)
async def test_stalls(kind: str) -> None:
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
