"""The list of an API's models: requests, pages and names."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from support.apis import GEMINI, OPENAI, Api, every_model_api
from support.loops import virtual

from gprochat_anyio import (
    AuthenticationError,
    Client,
    GPROChatError,
    ReplyInterruptedError,
    RequestTimeoutError,
    SiteError,
    Timeouts,
    UnexpectedResponseError,
)
from gprochat_anyio._request.address import SiteAddress
from gprochat_anyio._request.chat_client import opener_of
from gprochat_anyio.testing import Drop, Hang, MemorySite, Pause, Raw, Script, scripted_site

KEY = "sk-canary"


def response(value: Any, status: int = 200) -> Raw:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    head = b"HTTP/1.1 %d E\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return Raw(head % (status, len(data)) + data)


def listed(name: str, token: str | None = None) -> dict[str, Any]:
    """Return a list of one model in the API's format."""
    model = {"name": f"models/{name}", "supportedGenerationMethods": ["generateContent"]}
    more = {} if token is None else {"nextPageToken": token}
    return {"models": [model], "data": [{"id": name}], **more}


def serving(*scripts: Script) -> MemorySite:
    return scripted_site(*scripts, strict=False)


async def names_of(client: Client) -> list[str]:
    return await opener_of(client).list_models()


@every_model_api
async def test_names(api: Api) -> None:
    async with serving(response(listed("a"))) as site:
        async with api.client(f"{site.url}/v1", api_key=KEY) as client:
            assert await names_of(client) == ["a"]
    (request,) = site.requests
    assert request.path == "/v1/models"
    assert KEY in request.headers["x-goog-api-key" if api is GEMINI else "authorization"]
    assert request.headers["accept"] == "application/json"
    assert not {"content-type", "content-length"} & request.headers.keys()


async def test_pages() -> None:
    pages = [listed("a", "t"), listed("b", "u"), listed("c")]
    async with serving(*map(response, pages)) as site:
        async with GEMINI.client(site.url) as client:
            assert await names_of(client) == ["a", "b", "c"]
    assert len(site.requests) == 3


async def test_pages_without_end() -> None:
    async with serving(response(listed("a", "again"))) as site:
        async with GEMINI.client(site.url) as client:
            assert await names_of(client) == 20 * ["a"]


async def test_another_transport_gets_the_same_requests() -> None:
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, json=listed("a", None if len(requests) > 1 else "a/b&c"))

    transport = httpx.MockTransport(answer)
    async with GEMINI.client("http://x", api_key=KEY, transport=transport) as client:
        assert await names_of(client) == ["a", "a"]
    assert [(request.method, str(request.url)) for request in requests] == [
        ("GET", "http://x/models?pageSize=1000"),
        ("GET", "http://x/models?pageSize=1000&pageToken=a%2Fb%26c"),
    ]
    assert requests[0].headers["accept"] == "application/json"
    assert requests[0].headers["x-goog-api-key"] == KEY
    assert not {"content-type", "content-length"} & requests[0].headers.keys()


@pytest.mark.parametrize(
    ("script", "kind", "said"),
    [
        (response({"error": {"message": f"no {KEY}"}}, 401), AuthenticationError, "refused the"),
        (response({"error": {"message": f"no {KEY}"}}, 500), SiteError, r"says: no \*\*\*"),
        (response(b"<html>"), UnexpectedResponseError, "other than a list of models"),
        (
            response(b'{"data": [], "x": "' + 8 * 1024 * 1024 * b"x" + b'"}'),
            UnexpectedResponseError,
            "other than a list of models",
        ),
        (
            Raw(b"HTTP/1.1 302 F\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"),
            UnexpectedResponseError,
            "redirect",
        ),
        (
            [Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"), Drop()],
            ReplyInterruptedError,
            "ask again",
        ),
    ],
    ids=["key", "error", "html", "too long", "redirect", "cut"],
)
async def test_failures(script: Script, kind: type[GPROChatError], said: str) -> None:
    async with serving(script) as site:
        async with OPENAI.client(site.url, api_key=KEY) as client:
            with pytest.raises(kind, match=said) as caught:
                await names_of(client)
    assert type(caught.value) is kind
    assert KEY not in repr(caught.value)
    assert caught.value.__context__ is caught.value.__cause__ is None


@virtual
async def test_total_spans_all_pages() -> None:
    async with serving([Pause(6), response(listed("a", "t"))], [Pause(6), Hang()]) as site:
        async with GEMINI.client(site.url, timeouts=Timeouts(total=10)) as client:
            with pytest.raises(RequestTimeoutError) as caught:
                await names_of(client)
    assert caught.value.phase == "total"
    assert caught.value.elapsed == pytest.approx(10)


def test_a_proxy_gets_the_absolute_url() -> None:
    fields = {"Authorization": "Bearer k", "Content-Type": "a/b", "ACCEPT": "a/b"}
    by = SiteAddress("http://x/v1", fields=fields, proxy="http://u:p@y:1", trust_env=False)
    head = by.get("/models").decode()
    assert head.startswith("GET http://x/v1/models HTTP/1.1\r\nHost: x\r\n")
    assert head.endswith(
        "Authorization: Bearer k\r\nAccept: application/json\r\n"
        "Proxy-Authorization: Basic dTpw\r\n\r\n"
    )
    assert "Bearer" not in repr(by.get("/models"))


async def test_a_gprochat_site_has_no_list() -> None:
    async with Client("http://x") as client:
        with pytest.raises(TypeError, match="only a model API can list"):
            await names_of(client)
