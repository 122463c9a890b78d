"""Secrets are not sent to another host, unencrypted, or to a peer without a valid certificate."""

from __future__ import annotations

import ssl
from functools import partial
from typing import Any

import anyio
import anyio.abc
import anyio.streams.tls
import pytest
import trustme
from support.response_bytes import answer
from support.scripted import reply
from support.servers import Request, repeating, serving

from gprochat_anyio import (
    Client,
    GPROChat,
    InsecureSiteWarning,
    Retry,
    SiteConnectionError,
    UnexpectedResponseError,
)
from gprochat_anyio.transport import AnyIOTransport

KEY, PASSWORD, PROMPT = "canary-of-the-key", "canary-of-the-password", "canary-of-the-prompt"
SECRETS: dict[str, Any] = {"secret_key": KEY, "password": PASSWORD}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["another host", "the same host", "nowhere"])
async def test_no_redirect_is_followed(status: int, where: str) -> None:
    requests: list[Request] = []
    async with serving(repeating(reply("stolen"))) as other:
        there = {"another host": other.url, "the same host": "/api/auth", "nowhere": "\\"}[where]
        redirect = answer(status, b"", {"Location": there})
        async with serving(repeating(redirect, seen=requests)) as site:
            async with Client(site.url, **SECRETS, retry=Retry(attempts=1)) as client:
                for ask in (partial(client.ask, PROMPT), client.check_password):
                    with pytest.raises(UnexpectedResponseError, match="redirect"):
                        await ask()
            assert len(requests) == 2
        assert other.accepted == 0


class TestPlainHTTP:
    @pytest.mark.parametrize("host", ["chat.example.org", "10.0.0.1", "128.0.0.1", "[::2]"])
    @pytest.mark.parametrize(
        "make", [Client, Client.from_env, partial(GPROChat.create_async_generator, "", [])]
    )
    def test_with_a_password_warns_the_caller_once(self, make: Any, host: str) -> None:
        with pytest.warns(InsecureSiteWarning, match="unencrypted: use https://") as caught:
            made = make(url=f"http://{host}:1", **SECRETS)
        assert len(caught) == 1
        assert caught[0].filename == __file__
        assert "canary" not in str(caught[0].message)
        assert made is not None

    @pytest.mark.parametrize(
        "settings",
        [
            {"url": "https://chat.example.org"},
            {"password": None},
            {"password": ""},
            {"url": "http://127.0.0.1:1"},
            {"url": "http://127.255.0.1"},
            {"url": "http://[::1]"},
            {"url": "http://localhost"},
            {"url": "http://LocalHost:80"},
            {"proxy": "socks5://127.0.0.1:1080"},
        ],
    )
    def test_otherwise_does_not(self, settings: dict[str, Any]) -> None:
        Client(**{"url": "http://chat.example.org", **SECRETS, **settings})  # warnings are errors

    async def test_over_another_transport_does_not(self) -> None:
        async with AnyIOTransport(uds="/nowhere") as transport:
            Client("http://chat.example.org", **SECRETS, transport=transport)


async def test_tls_is_verified_in_any_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("PYTHONHTTPSVERIFY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "VERIFY"):
        monkeypatch.setenv(name, "0")
    authority = trustme.CA()
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(served)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    received = bytearray()

    async def listen(stream: Any) -> None:
        async with stream:
            received.extend(await stream.receive())
            await stream.send(reply("ok"))

    tcp = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = tcp.extra(anyio.abc.SocketAttribute.local_port)
    listener = anyio.streams.tls.TLSListener(tcp, served, standard_compatible=False)
    async with listener, anyio.create_task_group() as tg:
        tg.start_soon(listener.serve, listen)
        url = f"https://127.0.0.1:{port}"
        async with Client(url, **SECRETS, retry=Retry(attempts=1)) as client:
            with pytest.raises(SiteConnectionError, match="certificate"):
                await client.ask(PROMPT)
        assert not received
        async with Client(url, **SECRETS, ssl_context=trusting) as client:
            assert (await client.ask(PROMPT)).text == "ok"
        tg.cancel_scope.cancel()
