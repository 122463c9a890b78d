"""Credentials of proxies: missing or refused, and never shown."""

from __future__ import annotations

from base64 import b64encode

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.proxies import proxying
from support.servers import Peer, client_context, repeating, server_context, serving

from gprochat_anyio.testing import at_every_checkpoint
from gprochat_anyio.transport._connecting import connect
from gprochat_anyio.transport._proxies import proxy_refusal
from gprochat_anyio.transport._target import Proxy, Target

from .connecting import shown_by
from .test_tunnels import refused_by


@pytest.mark.parametrize("credentials", ["me:wrong-secret", "me", "you:secret"])
@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_refused_credentials(kind: str, credentials: str) -> None:
    async with proxying(kind, credentials=("me", "secret")) as proxy:
        by = Proxy.from_url(f"{kind}://{credentials}@127.0.0.1:{proxy.port}")
        message = f"^the proxy 127.0.0.1:{proxy.port} refused the credentials in its URL$"
        await refused_by(by, message, final=True)


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_missing_credentials(kind: str) -> None:
    async with proxying(kind, credentials=("me", "secret")) as proxy:
        by = Proxy.from_url(f"{kind}://127.0.0.1:{proxy.port}")
        message = f"^the proxy 127.0.0.1:{proxy.port} requires credentials; add them to"
        await refused_by(by, message, final=True)


@pytest.mark.parametrize("how", ["whole", "cut off", "unread", "invalid", "after another"])
async def test_a_407_is_reported_however_the_connection_ends(how: str) -> None:
    async def handle(peer: Peer) -> None:
        head = b"HTTP/1.1 407 Proxy Authentication Required\r\n"
        if how == "after another":
            head = b"HTTP/1.1 100 Continue\r\n\r\n" + head
        if how == "invalid":
            head += b"no field\r\n"
        if how != "unread":
            await peer.head()
        await peer.send(head + (b"" if how == "cut off" else b"\r\n"))
        if how != "whole":
            peer.reset()

    async with serving(handle) as proxy:
        by = Proxy.from_url(f"http://127.0.0.1:{proxy.port}")
        await refused_by(by, "requires credentials", final=True)
        await proxy.all_ended()


def test_a_refusal_names_the_proxy() -> None:
    refusal = proxy_refusal(Proxy.from_url("http://[::1]:3128"))
    assert str(refusal).startswith("the proxy [::1]:3128 requires credentials; add them")
    refusal = proxy_refusal(Proxy.from_url("http://me:secret@proxy.test"))
    assert str(refusal) == "the proxy proxy.test:80 refused the credentials in its URL"
    assert refusal.final


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_a_cancellation_holds_no_credentials(kind: str) -> None:
    secret = "canary-of-the-proxy"
    cancelled: list[BaseException] = []

    async def once() -> None:
        by = Proxy.from_url(f"{kind}://me:{secret}@127.0.0.1:{proxy.port}")
        target = Target("http" if kind == "socks5" else "https", "site.test", site.port, by)
        try:
            opened = await connect(target, ssl_context=client_context(), uds=None)
        except BaseException as error:
            cancelled.append(error)
            raise
        with opened.socket:
            await checkpoint()

    with anyio.fail_after(20):
        async with (
            proxying(kind, credentials=("me", secret)) as proxy,
            serving(repeating(), tls=None if kind == "socks5" else server_context()) as site,
        ):
            for cancel in at_every_checkpoint():
                await cancel(once)
    encoded = b64encode(f"me:{secret}".encode()).decode()
    assert any(shown_by(error, "'target'") for error in cancelled)  # the frames are captured
    assert not [shown for error in cancelled for shown in shown_by(error, secret, encoded)]
