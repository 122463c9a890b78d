"""Requests to the OpenAI endpoint: checks, histories, and a site behind this one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.openai_site import HELLO, ask, asking, request
from support.site_wire import connected, serving

from gprochat_anyio import Retry, Timeouts
from gprochat_anyio.site import create_app, echo_model
from gprochat_anyio.testing import Drop, Hang, Raw, Refuse, Reply, Say, live_site


class TestRequests:
    @pytest.mark.parametrize(
        ("body", "said", "param"),
        [
            (b"{", "not JSON", None),
            (b"", "not JSON", None),
            (b"\xff", "not JSON", None),
            (b"[" * 100_000, "not JSON", None),
            ([], "not a JSON object", None),
            ({"messages": None}, "list", "messages"),
            ({"messages": []}, "list", "messages"),
            ({"messages": "Hi"}, "list", "messages"),
            ({"messages": [1]}, "message", "messages"),
            ({"messages": [None, *HELLO]}, "message", "messages"),
            ({"messages": [{"role": "user"}]}, "message", "messages"),
            ({"messages": [{"role": "user", "content": " "}]}, "blank", "messages"),
            ({"messages": [{"role": "assistant", "content": "a"}]}, "last", "messages"),
            ({"messages": [{"role": "tool", "content": "a"}, *HELLO]}, "role", "messages"),
            ({"messages": [{"role": "user", "content": "\ud800"}]}, "surrogate", "messages"),
            (
                {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
                "not supported",
                "messages",
            ),
            (asking(stream="yes"), "true or false", "stream"),
            (asking(stream=1), "true or false", "stream"),
            (asking(stream_options=["include_usage"]), "an object", "stream_options"),
            (asking(n=2), "one text", "n"),
            (asking(tools=[{"type": "function"}]), "one text", "tools"),
            (asking(response_format={"type": "json_object"}), "one text", "response_format"),
            (asking(logprobs=True), "one text", "logprobs"),
            (asking(modalities=["audio"]), "one text", "modalities"),
        ],
    )
    async def test_invalid_requests(self, body: Any, said: str, param: str | None) -> None:
        async with serving(echo_model) as port:
            seen = await ask(port, body)
        assert seen.status == 400
        error = json.loads(seen.body)["error"]
        assert said in error["message"]
        assert error["type"] == "invalid_request_error"
        assert error["param"] == param

    async def test_default_parameters(self) -> None:
        asked = asking(
            n=1,
            tools=[],
            logprobs=False,
            modalities=["text"],
            response_format={"type": "text"},
            stream=None,
            audio=None,
        )
        async with serving(echo_model) as port:
            assert (await ask(port, asked)).status == 200

    @pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
    async def test_content_types_of_foreign_web_pages(self, kind: str) -> None:
        sent = request(asking()).replace(b"application/json; charset=utf-8", kind.encode())
        async with serving(echo_model) as port, connected(port) as wire:
            await wire.stream.send(sent)
            seen = await wire.read()
        assert seen.status == 400
        assert b"application/json" in seen.body

    @pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/", "/v1/chat/completions/"])
    async def test_unknown_paths(self, path: str) -> None:
        async with serving(echo_model) as port:
            seen = await ask(port, {}, path)
        assert seen.status == 404
        assert json.loads(seen.body)["error"]["code"] == "unknown_url"

    @pytest.mark.parametrize("key", ["", "Basic word", "Bearer", "Bearer  ", "word", "Bearer wor"])
    @pytest.mark.parametrize(
        "path", ["/v1/chat/completions", "/v1/models", "/v1/models/x", "/v1/x"]
    )
    async def test_without_the_key(self, key: str, path: str) -> None:
        async with serving(create_app(echo_model, passwords=["word"])) as port:
            body = asking() if path.endswith("completions") else None
            seen = await ask(port, body, path, key=key)
            assert (seen.status, seen.headers["www-authenticate"]) == (401, "Bearer")
            right = await ask(port, body, path, key="bearer word")
        assert right.status in (200, 404)


class TestGateway:
    @pytest.mark.parametrize(
        ("script", "status", "said"),
        [
            ("Hi", 200, '"content":"Hi"'),
            ("", 200, '"content":""'),
            (Drop(), 503, "the model behind this site: "),
            (
                [Raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"), Drop()],
                500,
                "text/html",
            ),
            (Refuse(429, retry_after=9), 429, "[429 Too Many Requests]"),
            (Refuse(401, "Invalid signature. "), 500, "GPROCHAT_UPSTREAM_SECRET_KEY"),
            ([Say("Hi"), Drop()], 500, "broke off"),
        ],
    )
    async def test_errors_of_the_site_behind(self, script: Reply, status: int, said: str) -> None:
        async with (
            live_site(script) as upstream,
            upstream.client(retry=Retry(attempts=1)) as client,
            serving(client) as port,
        ):
            seen = await ask(port, asking())
        assert (seen.status, said in seen.body.decode()) == (status, True)
        assert seen.headers.get("retry-after") == ("9" if status == 429 else None)

    async def test_a_silent_site(self) -> None:
        async with (
            live_site(Hang()) as upstream,
            upstream.client(timeouts=Timeouts(total=0.01)) as client,
            serving(client) as port,
        ):
            assert (await ask(port, asking())).status == 504


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "none"},
        {"functions": [{"name": "f"}], "function_call": "none"},
    ],
)
async def test_disabled_tools_are_accepted(fields: Any) -> None:
    async with serving(echo_model) as port:
        assert (await ask(port, asking(**fields))).status == 200
        seen = await ask(port, asking(**{**fields, "tool_choice": "auto", "function_call": "auto"}))
    assert seen.status == 400


@pytest.mark.parametrize(
    "silent",
    [
        {"role": "assistant", "tool_calls": [{"id": "1", "type": "function"}]},
        {"role": "assistant", "content": []},
        {"role": "assistant", "content": [{"type": "text", "text": " "}]},
        {"role": "system", "content": [{"type": "text", "text": ""}]},
    ],
)
async def test_blank_messages_are_omitted(silent: Any) -> None:
    async with serving(echo_model) as port:
        seen = await ask(port, asking(messages=[silent, *HELLO]))
    assert (seen.status, b"Hello you" in seen.body) == (200, True)


@pytest.mark.parametrize(
    "message",
    [{"role": "user"}, {"role": "user", "content": ["", 1]}, {"role": "user", "content": 0}],
)
async def test_invalid_messages_are_refused(message: Any) -> None:
    async with serving(echo_model) as port:
        assert (await ask(port, asking(messages=[message, *HELLO]))).status == 400
