"""Requests to scripted sites in each API: records, keys, malformed bodies."""

from __future__ import annotations

import json
import re
from typing import Any

import anyio
import pytest
from support.scripted_apis import OPENAI, PARTS, PATHS, USER, client_of, every_api, raw_reply

from gprochat_anyio import AuthenticationError
from gprochat_anyio.testing import live_site, scripted_site

HISTORY = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c"},
]


@every_api
@pytest.mark.parametrize("pass_", [None, "pass"])
async def test_a_request_is_reported_alike_in_every_api(api: str, pass_: str | None) -> None:
    async with scripted_site("ok", secret_key="key", password=pass_) as site:
        async with client_of(site, api) as client:
            await client.ask(HISTORY)
    (request,) = site.requests
    assert (request.api, request.path) == (api, PATHS[api])
    told: tuple[tuple[str, str], ...]
    told = (("system", "be brief"), ("user", "a"), ("model", "b"), ("user", "c"))
    if api == "gprochat":
        told = (("user", "be brief\n\na"), *told[2:])
    assert request.messages == told
    assert request.prompt == "c"
    assert request.body
    assert (request.signature_ok, request.password_ok, request.number) == (True, True, 0)


@every_api
async def test_an_open_site_needs_no_key(api: str) -> None:
    async with scripted_site(lambda request: request.prompt.upper()) as site:
        async with client_of(site, api) as client:
            assert (await client.ask("hello")).text == "HELLO"
        assert site.requests[0].password_ok


@every_api
@pytest.mark.parametrize("lock", ["password", "secret_key"])
async def test_a_wrong_key_is_refused(api: str, lock: str) -> None:
    locked: dict[str, Any] = {lock: "canary-right"}
    async with scripted_site("ok", **locked) as site:
        wrong = {lock: "wrong"} if api == "gprochat" else {"api_key": "wrong"}
        async with client_of(site, api, **wrong) as client:
            with pytest.raises(AuthenticationError) as refused:
                await client.ask("Hi")
        assert refused.value.status == (400 if api == "gemini" else 401)
        assert (site.requests[0].number, site.requests[0].outcome) == (-1, "refused")
        assert not (site.requests[0].password_ok and site.requests[0].signature_ok)
        async with client_of(site, api) as client:
            assert (await client.ask("Hi")).text == "ok"
    async with scripted_site("ok", strict=False, **locked) as site:
        async with client_of(site, api, **wrong) as client:
            assert (await client.ask("Hi")).text == "ok"


@pytest.mark.parametrize(
    ("api", "body", "says"),
    [
        ("openai", b"{", "a JSON object"),
        ("openai", [], "a JSON object"),
        ("openai", {"messages": [USER], "stream": True}, "a model parameter"),
        ("openai", OPENAI, "at least one message"),
        ("openai", OPENAI | {"messages": []}, "at least one message"),
        ("openai", OPENAI | {"messages": [USER, 7]}, r"messages\[1\] must be"),
        ("openai", OPENAI | {"messages": [{"role": "bot"}]}, "one of the roles"),
        ("openai", OPENAI | {"messages": [{"role": "user"}]}, r"messages\[0\].content"),
        ("openai", {"model": "m", "messages": [USER]}, "only streams"),
        ("gemini", b"{", "Invalid JSON"),
        ("gemini", {"contents": {}}, "contents is not specified"),
        ("gemini", {"contents": []}, "contents is not specified"),
        ("gemini", {"contents": [PARTS, 7]}, r"contents\[1\]: please use a valid role"),
        ("gemini", {"contents": [{"role": "bot"}]}, "valid role"),
        ("gemini", {"contents": [{"role": "user"}]}, r"contents\[0\].parts"),
        ("gemini", {"contents": [{"parts": []}]}, "at least one part"),
        ("gemini", {"contents": [{"parts": ["a"]}]}, "at least one part"),
    ],
)
async def test_a_malformed_body_is_refused(api: str, body: Any, says: str) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with scripted_site("ok") as site:
        head, (answer,) = await raw_reply(site, api, data)
        assert head.startswith(b"HTTP/1.1 400 ")
        error = json.loads(answer)["error"]
        assert re.search(says, error["message"])
        kind = error["type"] if api == "openai" else error["status"]
        assert kind.upper() in ("INVALID_REQUEST_ERROR", "INVALID_ARGUMENT")
        assert (site.requests[0].number, site.requests[0].outcome) == (-1, "refused")
    with scripted_site("ok", strict=False) as site:
        head, chunks = await raw_reply(site, api, data)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert chunks


@pytest.mark.parametrize(
    ("api", "body", "messages"),
    [
        ("openai", {"messages": 7}, ()),
        (
            "openai",
            {
                "messages": [
                    7,
                    {"role": "developer", "content": [{"type": "text", "text": "a"}]},
                    {"role": "assistant", "content": None},
                    {"role": "tool", "content": "b"},
                ]
            },
            (("system", "a"), ("model", ""), ("tool", "b")),
        ),
        ("gemini", {"systemInstruction": 7, "contents": 7}, ()),
        (
            "gemini",
            {"systemInstruction": {"parts": [{"text": "a"}]}, "contents": [7, {"parts": 7}]},
            (("system", "a"), ("None", "")),
        ),
    ],
)
async def test_histories(api: str, body: Any, messages: object) -> None:
    with scripted_site("ok", strict=False) as site:
        await raw_reply(site, api, json.dumps(body).encode())
        assert site.requests[0].messages == messages


async def test_the_key_of_openais_api_is_a_bearer_token() -> None:
    with scripted_site("ok", password="p") as site:
        body = json.dumps(OPENAI | {"messages": [USER]}).encode()
        for field, right in (("bearer  p", True), ("Basic p", False), ("", False)):
            await raw_reply(site, "openai", body, f"Authorization: {field}")
            assert site.requests[-1].password_ok is right


async def test_one_site_serves_clients_of_every_api() -> None:
    with anyio.fail_after(10):
        async with live_site(lambda request: request.api) as site:
            for api in PATHS:
                async with client_of(site, api) as client:
                    assert (await client.ask("Hi")).text == api
        async with scripted_site("ok", url="http://127.0.0.1:9/base") as memory:
            async with memory.openai_client("small", system="x") as client:
                assert (client.model, client.url) == ("small", "http://127.0.0.1:9/base/v1")
                await client.ask("Hi")
            async with memory.gemini_client(model="flash", fields={"a": 1}) as client:
                await client.ask("Hi")
            assert [request.body["model"] for request in memory.requests[:1]] == ["small"]
            assert memory.requests[1].path == "/base/v1beta/models/flash:streamGenerateContent"
            assert memory.requests[1].body["a"] == 1
