"""The pytest plugin's option that forbids network access."""

from __future__ import annotations

from functools import partial

import anyio
import pytest

from gprochat_anyio import Client, Retry, gather
from gprochat_anyio.testing import (
    NetworkForbiddenError,
    allow_network,
    forbid_network,
    live_site,
    scripted_site,
)
from gprochat_anyio.transport import AnyIOTransport
from gprochat_anyio.transport._http_library import httpx
from gprochat_anyio.transport._wiring import is_loopback, switches

ELSEWHERE = "http://chat.example.org"


@pytest.fixture(autouse=True)
def nothing_goes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*args: object, **options: object) -> None:
        raise OSError("as if there were no network")

    monkeypatch.setattr(anyio, "connect_tcp", refuse)


async def test_a_connection_elsewhere_is_refused() -> None:
    with forbid_network():
        async with Client(ELSEWHERE) as client:
            with pytest.raises(NetworkForbiddenError, match="scripted_site") as caught:
                await client.ask("Hi")
            assert "chat.example.org" in str(caught.value)
            with pytest.raises(NetworkForbiddenError):
                await client.check_password()


@pytest.mark.parametrize("proxy", ["http", "socks5", "https"])
async def test_a_proxy_elsewhere_is_refused(proxy: str) -> None:
    with forbid_network():
        async with Client(ELSEWHERE, proxy=f"{proxy}://proxy.example.org") as client:
            with pytest.raises(NetworkForbiddenError, match=r"to proxy\.example\.org"):
                await client.ask("Hi")


async def test_httpx() -> None:
    with forbid_network():
        async with httpx.AsyncClient(transport=AnyIOTransport()) as other:
            with pytest.raises(NetworkForbiddenError):
                await other.get(ELSEWHERE)
        async with Client(ELSEWHERE, transport=httpx.AsyncHTTPTransport()) as client:
            with pytest.raises(NetworkForbiddenError):
                await client.ask("Hi")
        mock = httpx.MockTransport(lambda _: httpx.Response(200, text="ok"))
        async with Client(ELSEWHERE, transport=mock) as client:
            assert (await client.ask("Hi")).text == "ok"


async def test_local_sites_are_allowed() -> None:
    with forbid_network():
        async with scripted_site("memory") as site, site.client() as client:
            assert (await client.ask("Hi")).text == "memory"
        async with live_site("live") as live, live.client() as client:
            assert (await client.ask("Hi")).text == "live"


async def test_it_can_be_allowed_again() -> None:
    async with Client(ELSEWHERE, retry=Retry(attempts=1)) as client:
        ask = partial(client.ask, "Hi")
        with forbid_network():
            with allow_network():
                with pytest.raises(Exception, match="could not connect"):
                    await ask()
            with pytest.raises(NetworkForbiddenError):
                await ask()
        with pytest.raises(Exception, match="could not connect"):
            await ask()
    assert not switches


async def test_it_is_not_reported_as_a_failed_request() -> None:
    with forbid_network():
        async with Client(ELSEWHERE) as client:
            with pytest.raises(NetworkForbiddenError):
                await gather(client, ["a"])


@pytest.mark.parametrize(
    ("host", "is_it"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::1%lo", True),
        ("localhost", True),
        ("site.localhost", True),
        ("10.0.0.1", False),
        ("example.org", False),
        ("localhost.example.org", False),
        ("0.0.0.0", False),  # noqa: S104 - no listener
    ],
)
def test_loopback(host: str, is_it: bool) -> None:
    assert is_loopback(host) == is_it
