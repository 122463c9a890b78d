"""Client: configuration, requests, the password check, and use in the wrong place."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import anyio
import pytest
from support.blocked import all_tasks_blocked
from support.http_libraries import httpx
from support.prompted import closed
from support.response_bytes import answer
from support.retries import ONCE
from support.scripted import reply
from support.servers import Request, closed_port, closing, repeating, serving

from gprochat_anyio import (
    Client,
    EmptyReplyError,
    GPROChatError,
    InvalidPromptError,
    ReplyInterruptedError,
    Retry,
    SiteConnectionError,
    Timeouts,
    UnexpectedResponseError,
    __version__,
)
from gprochat_anyio._request.chat_client import opener_of
from gprochat_anyio._wire.gprochat import sign
from gprochat_anyio._wire.gprochat_wire import GPROChatWire
from gprochat_anyio.testing import Drop, Fail, Raw, Reply, Say, live_site


async def test_request() -> None:
    requests: list[Request] = []
    async with serving(repeating(reply("ok"), seen=requests)) as site:
        async with Client(f"{site.url}/sub/path/", secret_key="ключ", password="pw") as client:
            await client.ask([{"role": "user", "content": "é"}])
        (request,) = requests
        assert request.head.startswith(b"POST /sub/path/api/generate HTTP/1.1\r\n")
        body = json.loads(request.body)
        assert body == {
            "messages": [{"role": "user", "parts": [{"text": "é"}]}],
            "time": body["time"],
            "pass": "pw",
            "sign": sign(body["time"], "é", "ключ"),
        }
        headers = dict(request.headers)
        assert headers.pop("content-length").isdigit()
        assert headers == {
            "host": site.url.removeprefix("http://"),
            "accept": "*/*",
            "accept-encoding": "identity",
            "content-type": "text/plain;charset=UTF-8",
            "origin": site.url,
            "referer": f"{site.url}/sub/path/",
            "user-agent": f"gprochat-anyio/{__version__}",
        }


async def test_headers_are_overridable() -> None:
    requests: list[Request] = []
    async with serving(repeating(reply("ok"), seen=requests)) as site:
        headers = {"user-AGENT": "mine", "Origin": "https://o", "X-More": "é"}
        async with Client(site.url, headers=headers) as client:
            await client.ask("hi")
    got = requests[0].headers
    assert (got["user-agent"], got["origin"], got["x-more"]) == ("mine", "https://o", "é")
    assert requests[0].head.lower().count(b"user-agent") == 1


async def test_a_large_prompt() -> None:
    prompt = "x" * 1_000_000
    async with live_site("ok") as site, site.client() as client:
        await client.ask(prompt)
        assert site.requests[0].prompt == prompt


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("http://host", "http://host", ""),
        ("https://host:8443/", "https://host:8443", ""),
        ("https://host:443/a/", "https://host", "/a"),
        ("http://[::1]:80/a/b", "http://[::1]", "/a/b"),
        ("http://b\u00fccher.example", "http://xn--bcher-kva.example", ""),
        ("http://host/\u65e5/%E6%97%A5/a:@b", "http://host", "/%E6%97%A5/%E6%97%A5/a:@b"),
        ('http://host/"\\', "http://host", "/%22%5C"),
    ],
)
def test_urls(url: str, origin: str, path: str) -> None:
    client = Client(url, trust_env=False)
    assert repr(client) == f"<Client of {origin}{path}>"
    address = opener_of(client).address
    assert address is not None
    assert repr(address) == f"SiteAddress('{origin}{path}')"
    assert address.head("/x").startswith(f"POST {path}/x HTTP/1.1\r\nHost: ".encode())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"url": "host"},
            r"^url must be .* http:// or https://, such as http://127\.0\.0\.1:8000$",
        ),
        ({"url": "127.0.0.1:8123"}, r"url must be .*, such as http://127\.0\.0\.1:8000$"),
        ({"url": "ftp://host"}, "url must be"),
        ({"url": "https://"}, "url must be"),
        ({"url": ""}, "url must be"),
        ({"url": b"https://host"}, "url must be .*, not bytes"),
        ({"url": "https://host:x"}, "url must be .*malformed"),
        ({"url": "https://host:99999"}, "url must be .*malformed"),
        ({"url": "https://[::1"}, "url must be .*malformed"),
        ({"url": "https://ho st"}, "url must be .*space"),
        ({"url": "https://host\r\nX: y"}, "url must be .*control"),
        ({"url": "https://host/?q=1"}, "url must not have a query"),
        ({"url": "https://host/#f"}, "url must not have a query"),
        ({"url": "https://host/x/api/generate/"}, "url .*: leave /api/generate out"),
        ({"url": "https://user:canary@host"}, "url must not contain credentials"),
        ({"url": "https://" + "é" * 70}, "url has an invalid host name"),
        ({"secret_key": 7}, "secret_key must be str"),
        ({"secret_key": None}, "secret_key must be str"),
        ({"password": b"x"}, "password must be str or None"),
        ({"timeouts": 10}, "timeouts must be Timeouts or None, not int"),
        ({"retry": 3}, "retry must be Retry"),
        ({"max_connections": 0}, "max_connections must be at least 1"),
        ({"max_connections": 1.5}, "max_connections must be int"),
        ({"max_connections": True}, "max_connections must be int"),
        ({"proxy": "host:3128"}, "proxy must be"),
        ({"proxy": "ftp://canary:canary@host"}, "proxy must be"),
        ({"headers": {"X\r\n": "y"}}, "headers: a name"),
        ({"headers": {"": "y"}}, "headers: a name"),
        ({"headers": {"X": "a\r\nb"}}, "headers: the value of X"),
        ({"headers": {"X": "a\0"}}, "headers: the value of X"),
        ({"headers": {"X": "\u0436"}}, "headers: the value of X"),
        ({"headers": {"X": 7}}, "headers: the value of X"),
        ({"headers": {"Content-Length": "7"}}, "headers: Content-Length"),
        ({"headers": {"host": "elsewhere"}}, "headers: host"),
        (
            {"transport": object(), "proxy": "http://host"},
            "proxy and ssl_context are settings of the transport",
        ),
    ],
)
def test_bad_settings(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says}" if says[0].islower() else says) as caught:
        Client(**{"url": "https://host", **settings})
    assert "canary" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("limit", [-1, float("nan"), "10", True])
@pytest.mark.parametrize("name", ["connect", "first_chunk", "idle", "total"])
def test_bad_timeouts(name: str, limit: Any) -> None:
    with pytest.raises(ValueError, match=f"timeouts: {name}"):
        Timeouts(**{name: limit})


def test_timeouts() -> None:
    assert repr(Timeouts()) == "Timeouts(connect=10.0, first_chunk=60.0, idle=30.0, total=600.0)"
    merged = Timeouts(total=3, idle=None).over(Timeouts(connect=1, total=2))
    assert (merged.connect, merged.first_chunk, merged.idle, merged.total) == (1, 60, None, 3)


def test_from_env(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GPROCHAT_URL", "GPROCHAT_SECRET_KEY", "GPROCHAT_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="GPROCHAT_URL"):
        Client.from_env()
    monkeypatch.setenv("GPROCHAT_URL", "https://env")
    monkeypatch.setenv("GPROCHAT_SECRET_KEY", "k")
    monkeypatch.setenv("GPROCHAT_PASSWORD", "p")
    client = Client.from_env(retry=Retry(attempts=1))
    wire = opener_of(client).wire
    assert isinstance(wire, GPROChatWire)
    assert (repr(client), wire._secret_key, wire.password) == (
        "<Client of https://env>",
        "k",
        "p",
    )
    assert repr(Client.from_env(url="https://given")) == "<Client of https://given>"


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        (answer(200, b'{"code": 0}', {"content-type": "application/json"}), None),
        (answer(200, b'{"code": 0}', {}), True),
        (answer(200, b'{"code":-1}', {}), False),
        (answer(200, b"<html>", {}), UnexpectedResponseError),
        (answer(200, b" " * 5000, {}), UnexpectedResponseError),
        (answer(404, b"<html>", {}), UnexpectedResponseError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{", ReplyInterruptedError),
        (b"", SiteConnectionError),
    ],
)
async def test_check_password(data: bytes, outcome: bool | type[Exception] | None) -> None:
    requests: list[Request] = []
    async with serving(closing(data, seen=requests)) as site:
        async with Client(site.url, password="pw") as client:
            if outcome is None or isinstance(outcome, bool):
                assert await client.check_password() is (outcome is not False)
            else:
                with pytest.raises(outcome):
                    await client.check_password()
    assert requests[0].head.startswith(b"POST /api/auth ")
    assert json.loads(requests[0].body) == {"pass": "pw"}


async def test_check_password_of_a_site_that_is_down() -> None:
    async with Client(f"http://127.0.0.1:{closed_port()}") as client:
        with pytest.raises(SiteConnectionError, match="check the URL") as caught:
            await client.check_password()
    assert caught.value.__cause__ is caught.value.__context__ is None


async def test_check_password_with_a_transport_that_raises_its_own_error() -> None:
    class Broken(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: Any) -> Any:
            raise LookupError("mine")

    async with Client("http://site.test", transport=Broken()) as client:
        with pytest.raises(LookupError, match="mine"):
            await client.check_password()


async def test_an_invalid_prompt_sends_nothing() -> None:
    async with live_site("ok") as site, site.client() as client:
        with pytest.raises(InvalidPromptError):
            async with client.stream(""):
                pass
        with pytest.raises(InvalidPromptError):
            await client.ask([])
        send, receive = anyio.create_memory_object_stream[str](0)
        with receive, pytest.raises(InvalidPromptError):
            await client.stream_to(" ", send)
        assert not site.connections


async def test_the_marker_can_be_switched_off() -> None:
    async with live_site([Say("a"), Fail()]) as site:
        async with site.client(failure_marker=False) as client:
            assert (await client.ask("hi")).text == "aInternal server error"
        async with site.client(retry=ONCE) as client:
            with pytest.raises(ReplyInterruptedError):
                await client.ask("hi")


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (Raw(answer(302, b"", {"Location": "http://elsewhere/"})), UnexpectedResponseError),
        (Raw(answer(200, b"x", {"Content-Encoding": "gzip"})), UnexpectedResponseError),
        (Raw(answer(200, b"x", {"Content-Type": "text/html"})), UnexpectedResponseError),
        (
            [Raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhalf an answer"), Drop()],
            UnexpectedResponseError,
        ),
        (Raw(answer(204, b"", {})), UnexpectedResponseError),
        (
            Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
            UnexpectedResponseError,
        ),
        ("", EmptyReplyError),
    ],
)
async def test_invalid_replies(script: Reply, kind: type[GPROChatError]) -> None:
    async with live_site(script) as site, site.client(retry=ONCE) as client:
        with pytest.raises(kind) as caught:
            await client.ask("hi")
        assert type(caught.value) is kind


async def test_a_reply_of_a_given_length() -> None:
    whole = Raw(answer(200, "né".encode(), {"Content-Type": "text/plain"}))
    async with live_site(whole) as site:
        async with site.client() as client:
            assert (await client.ask("hi")).text == "né"


async def test_closed() -> None:
    async with live_site("ok") as site:
        async with site.client() as client:
            stream = client.stream("hi")
        entering = (stream.__aenter__(), client.__aenter__())
        for use in (client.ask("hi"), client.check_password(), *entering):
            with pytest.raises(RuntimeError, match="closed"):
                await use
        await closed(site)


@pytest.mark.parametrize("other", ["asyncio", "trio"])
async def test_another_event_loop(other: str) -> None:
    async with live_site("ok") as site, site.client() as client:
        async with client.stream("hi") as chunks:

            def elsewhere() -> None:
                with pytest.raises(RuntimeError, match="another event loop"):
                    anyio.run(client.ask, "hi", backend=other)
                with pytest.raises(RuntimeError, match="another event loop"):
                    anyio.run(chunks.receive, backend=other)

            await anyio.to_thread.run_sync(elsewhere)
            assert await chunks.read() == "ok"


async def test_after_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    async with live_site("ok") as site, site.client() as client:
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: -1)
            with pytest.raises(RuntimeError, match="forked"):
                await client.ask("hi")
        assert (await client.ask("hi")).text == "ok"


async def test_concurrent_requests_are_bounded() -> None:
    go = anyio.Event()
    async with live_site([go.wait, Say("ok")]) as site:
        async with site.client(max_connections=3) as client:
            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(client.ask, "hi")
                await all_tasks_blocked()
                assert site.connections == 3
                go.set()
        assert site.connections == 3
        assert len(site.requests) == 10


def test_version_is_a_release() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert json.dumps(__version__)
