"""`AnyIOTransport` as a client's transport, without httpx in between."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from support.http_libraries import LIBRARIES, httpx
from support.retries import ONCE
from support.scripted import reply
from support.servers import Peer, Request, serving

from gprochat_anyio import Client, ReplyInterruptedError, SiteConnectionError
from gprochat_anyio.testing import scripted_site
from gprochat_anyio.transport import AnyIOTransport
from gprochat_anyio.transport._anyio_transport import connections_of
from gprochat_anyio.transport._http_library import library_of


async def test_its_own_transport_is_used_without_httpx_between() -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply("Hello", "Internal server error"))

    with anyio.fail_after(10):
        async with serving(handle) as server:
            transport = AnyIOTransport(max_connections=1)
            async with Client(server.url, transport=transport, retry=ONCE) as client:
                with pytest.raises(ReplyInterruptedError, match="its model failed"):
                    await client.ask("Hi")
            own = connections_of(transport)
            assert own is not None
            assert own.pool._closed


@pytest.mark.parametrize(
    ("thing", "library"),
    [
        (httpx.Request("GET", "http://site.test"), httpx),
        (LIBRARIES[-1].Request("GET", "http://site.test"), LIBRARIES[-1]),
        (LIBRARIES[-1].MockTransport(lambda _: LIBRARIES[-1].Response(200)), LIBRARIES[-1]),
        (object(), httpx),
    ],
)
def test_the_library_of_an_object(thing: object, library: Any) -> None:
    assert library_of(thing) is library


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_proxy_of_its_own_transport_is_used(scheme: str) -> None:
    requests: list[Request] = []

    async def handle(peer: Peer) -> None:
        requests.append(await peer.request())
        await peer.send(reply("Hello"))

    with anyio.fail_after(10):
        async with serving(handle) as server:
            proxy = server.url.replace("://", "://user:pass@")
            transport = AnyIOTransport(proxy=proxy)
            async with Client(f"{scheme}://site.test", transport=transport, retry=ONCE) as client:
                if scheme == "http":
                    assert (await client.ask("Hi")).text == "Hello"
                else:
                    with pytest.raises(SiteConnectionError):
                        await client.ask("Hi")
    (request,) = requests
    place = {"http": "http://site.test/api/generate", "https": "site.test:443"}[scheme]
    assert request.place == place
    assert request.headers["proxy-authorization"] == "Basic dXNlcjpwYXNz"


async def test_a_subclass_of_its_own_transport() -> None:
    seen: list[str] = []

    class Telling(AnyIOTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            seen.append(request.url.path)
            return await super().handle_async_request(request)

    async with scripted_site("Hello") as site, site.client(transport=Telling()) as client:
        assert (await client.ask("Hi")).text == "Hello"
    assert seen == ["/api/generate"]
