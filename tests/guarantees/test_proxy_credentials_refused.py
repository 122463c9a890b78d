"""A proxy that asks for credentials: the error names the proxy, not the site, without a retry."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from support.servers import Handler, Peer, client_context, serving

from gprochat_anyio import Client, Failed, Retry, SiteConnectionError, fan_out

HEAD = b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\n"


def responding(*parts: bytes, read_body: bool, then: str) -> Handler:
    """Return the handler of a proxy that refuses.

    :param read_body: True if it reads the complete request first, as few proxies do.
    :param then: `wait` for the client to close, `close`, or `reset`.
    """

    async def handle(peer: Peer) -> None:
        await (peer.request() if read_body else peer.head())
        for part in parts:
            await peer.send(part)
        if then == "wait":
            await peer.until_closed()
        elif then == "reset":
            peer.reset()

    return handle


WHOLE = HEAD + b"Content-Length: 4\r\n\r\nno!\n"

REFUSALS: dict[str, Handler] = {
    "kept": responding(WHOLE, read_body=True, then="wait"),
    "closed": responding(HEAD + b"\r\n", b"no!", read_body=True, then="close"),
    "closed unread": responding(WHOLE, read_body=False, then="close"),
    "reset": responding(WHOLE, read_body=True, then="reset"),
    "reset unread": responding(WHOLE, read_body=False, then="reset"),
    "reset within its body": responding(
        HEAD + b"Content-Length: 400\r\n\r\nno!", read_body=False, then="reset"
    ),
    "reset within its head": responding(HEAD + b"Proxy-", read_body=False, then="reset"),
    "closed within its head": responding(HEAD + b"Proxy-", read_body=True, then="close"),
    "reset behind its head": responding(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n", read_body=False, then="reset"
    ),
}

SITES = pytest.mark.parametrize("site", ["http://site.test", "https://site.test"])

PROMPT = "x" * 1_000_000
"""More than a socket buffers, so that the client is still sending when the refusal arrives."""


async def ask(client: Client, prompt: str) -> object:
    return await client.ask(prompt)


async def stream(client: Client, prompt: str) -> object:
    async with client.stream(prompt) as chunks:
        return await chunks.read()


async def check_password(client: Client, _: str) -> object:
    return await client.check_password()


WAYS = pytest.mark.parametrize("way", [ask, stream, check_password])


@SITES
@pytest.mark.parametrize("handler", REFUSALS.values(), ids=[*REFUSALS])
@pytest.mark.parametrize("credentials", ["", "me:secret@"], ids=["without", "with"])
@pytest.mark.parametrize("prompt", ["hi", PROMPT], ids=["short", "long"])
async def test_the_error_names_the_proxy(
    site: str, handler: Handler, credentials: str, prompt: str
) -> None:
    with anyio.fail_after(10):
        async with serving(handler) as proxy:
            url = f"http://{credentials}127.0.0.1:{proxy.port}"
            retry = Retry(attempts=3, backoff=0)
            async with Client(site, proxy=url, retry=retry) as client:
                with pytest.raises(SiteConnectionError) as caught:
                    await client.ask(prompt)
            assert proxy.accepted == 1
    message = str(caught.value)
    assert f"the proxy 127.0.0.1:{proxy.port}" in message
    assert ("refused the credentials" if credentials else "requires credentials") in message
    assert "secret" not in message
    assert caught.value.__context__ is None


@SITES
@WAYS
async def test_every_way_to_ask(site: str, way: Any) -> None:
    handler = responding(WHOLE, read_body=False, then="reset")
    with anyio.fail_after(10):
        async with serving(handler) as proxy:
            url = f"http://127.0.0.1:{proxy.port}"
            retry = Retry(attempts=3, backoff=0)
            async with Client(site, proxy=url, retry=retry, ssl_context=client_context()) as client:
                with pytest.raises(SiteConnectionError, match=f"127.0.0.1:{proxy.port}"):
                    await way(client, "hi")
            assert proxy.accepted == 1


@SITES
async def test_each_prompt_of_a_fan_out_connects_to_the_proxy_once(site: str) -> None:
    handler = responding(WHOLE, read_body=False, then="reset")
    with anyio.fail_after(10):
        async with serving(handler) as proxy:
            url = f"http://127.0.0.1:{proxy.port}"
            async with Client(site, proxy=url, retry=Retry(attempts=3, backoff=0)) as client:
                async with fan_out(client, ["a", "b", "c"]) as events:
                    failed = [event async for event in events]
            assert proxy.accepted == 3
    assert [type(event) for event in failed] == [Failed] * 3


async def test_a_407_response_of_the_site_is_a_site_error() -> None:
    """Without a proxy that reads the request, only the site can have sent it."""
    handler = responding(WHOLE, read_body=True, then="wait")
    with anyio.fail_after(10):
        async with serving(handler) as server:
            async with Client(server.url, trust_env=False) as client:
                with pytest.raises(Exception, match="407") as caught:
                    await client.ask("hi")
    assert not isinstance(caught.value, SiteConnectionError)
