"""`Client.openai` and `Client.gemini`: settings, requests, and the details of a reply."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest
from support.apis import USAGE, Api, every_model_api

from gprochat_anyio import Client, Conversation, InsecureSiteWarning, Message, SyncClient
from gprochat_anyio.testing import Hang, Raw, Request, Say, Stop, live_site, scripted_site

openai: Callable[..., Client] = partial(Client.openai, model="m")
gemini: Callable[..., Client] = partial(Client.gemini, api_key="k")

SAYS = [Say("one"), Say("two"), Stop("length", USAGE)]


@pytest.mark.parametrize(
    ("make", "settings", "says"),
    [
        (openai, {"base_url": "host"}, "base_url must be an absolute URL"),
        (openai, {"base_url": "https://host/?a=b"}, "base_url must not have a query"),
        (openai, {"base_url": "https://host/v1/chat/completions"}, "leave /chat/completions out"),
        (openai, {"base_url": "https://me:canary@host"}, "base_url must not contain credentials"),
        (openai, {"model": ""}, "model must be the name"),
        (openai, {"model": None}, "model must be the name"),
        (openai, {"api_key": "é"}, "api_key"),
        (openai, {"api_key": 5}, "api_key"),
        (openai, {"model": "\udcff"}, "model is not valid Unicode; check how it was read"),
        (openai, {"system": "a\ud800"}, "system is not valid Unicode; check how it was read"),
        (openai, {"system": 5}, "system must be a str"),
        (openai, {"fields": {"a": object()}}, "fields must be a mapping"),
        (openai, {"fields": 5}, "fields must be a mapping"),
        (openai, {"timeouts": 5}, "timeouts must be Timeouts"),
        (openai, {"retry": 5}, "retry must be Retry"),
        (openai, {"limiter": 5}, "limiter must be Limiter"),
        (openai, {"proxy": "gopher://host"}, "proxy"),
        (openai, {"headers": {"a b": "c"}}, "headers"),
        (openai, {"max_connections": 0}, "max_connections must be at least 1"),
        (openai, {"max_reply_size": 0}, "max_reply_size must be at least 1"),
        (openai, {"transport": object(), "proxy": "http://host"}, "proxy and ssl_context"),
        (gemini, {"base_url": "host"}, "base_url must be an absolute URL"),
        (gemini, {"model": ""}, "model must be the name"),
        (gemini, {"api_key": ""}, "no api_key: set GEMINI_API_KEY"),
        (gemini, {"api_key": "a b"}, "api_key"),
        (gemini, {"model": "\udcff"}, "model is not valid Unicode; check how it was read"),
        (gemini, {"system": "a\ud800"}, "system is not valid Unicode; check how it was read"),
        (gemini, {"system": 5}, "system must be a str"),
        (gemini, {"fields": {"a": {1j}}}, "fields must be a mapping"),
        (gemini, {"max_reply_size": True}, "max_reply_size must be int"),
    ],
)
def test_invalid_settings(make: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        make(**{"base_url": "https://host", **settings})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("setting", ["secret_key", "password", "failure_marker", "url"])
def test_site_settings_are_rejected(setting: str) -> None:
    settings: dict[str, Any] = {setting: "x"}
    for make in (openai, gemini):
        with pytest.raises(TypeError):
            make(base_url="https://host", **settings)


def test_url_model_and_repr() -> None:
    client = Client.openai("https://Host:443/v1/", model="llama3.2", api_key="k")
    assert (client.url, client.model) == ("https://host/v1", "llama3.2")
    assert repr(client) == "<Client of llama3.2 at https://host/v1>"
    client = Client.gemini("models/gemini-flash-latest", api_key="k")
    url = "https://generativelanguage.googleapis.com/v1beta"
    assert (client.url, client.model) == (url, "gemini-flash-latest")
    assert Client.gemini(api_key="k").model == "gemini-flash-latest"
    assert Client("https://host").model is None


class TestGeminiKey:
    async def test_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GEMINI_API_KEY", "of-the-environment")
        async with scripted_site("ok") as site:
            for given in (None, "given"):
                async with Client.gemini(base_url=site.url, api_key=given) as client:
                    await client.ask("hi")
        keys = [request.headers["x-goog-api-key"] for request in site.requests]
        assert keys == ["of-the-environment", "given"]

    @pytest.mark.parametrize("value", [None, ""])
    def test_missing(self, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
        monkeypatch.delenv("GEMINI_API_KEY", raising=False)
        if value is not None:
            monkeypatch.setenv("GEMINI_API_KEY", value)
        with pytest.raises(ValueError, match="no api_key: set GEMINI_API_KEY"):
            Client.gemini()

    async def test_openai_key_is_not_read_from_the_environment(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "of-the-environment")
        async with scripted_site("ok") as site, openai(site.url) as client:
            await client.ask("hi")
        assert "authorization" not in site.requests[0].headers


class TestPlainHTTP:
    @pytest.mark.parametrize("host", ["api.example.org", "10.0.0.1", "[::2]"])
    def test_with_a_key_warns_the_caller_once(self, host: str) -> None:
        for make in (partial(openai, api_key="canary"), gemini):
            with pytest.warns(InsecureSiteWarning, match="the API key is sent to") as caught:
                make(base_url=f"http://{host}:1")
            assert len(caught) == 1
            assert caught[0].filename == __file__
            assert "canary" not in str(caught[0].message)

    @pytest.mark.parametrize(
        "settings",
        [
            {"api_key": None},
            {"api_key": ""},
            {"base_url": "https://api.example.org"},
            {"base_url": "http://localhost:11434/v1"},
            {"base_url": "http://127.0.0.1"},
            {"proxy": "socks5://127.0.0.1:1080"},
        ],
    )
    def test_otherwise_does_not(self, settings: dict[str, Any]) -> None:
        given: dict[str, Any] = {"base_url": "http://api.example.org", "api_key": "k"}
        openai(**given | settings)


def requests_of(*clients: Client) -> list[Request]:
    """Return the request of each client for a prompt with a system text."""
    seen: list[Request] = []

    async def ask_all() -> None:
        for client in clients:
            async with client:
                await client.ask([Message("system", "Be brief."), Message("user", "Hi")])

    async def run() -> None:
        async with scripted_site("ok", url="https://api.test") as site:
            await ask_all()
            seen.extend(site.requests)

    anyio.run(run)
    return seen


def test_a_request_of_openai() -> None:
    fields = {"temperature": 0, "stream_options": None, "model": "not this", "x": [1]}
    (request,) = requests_of(
        Client.openai(
            "https://api.test/openai/v1",
            model="llama3.2",
            api_key="k",
            system="Be kind.",
            fields=fields,
            headers={"X-Title": "test"},
            trust_env=False,
        )
    )
    assert request.path == "/openai/v1/chat/completions"
    assert request.body == {
        "model": "llama3.2",
        "stream": True,
        "temperature": 0,
        "x": [1],
        "messages": [
            {"role": "system", "content": "Be kind.\n\nBe brief."},
            {"role": "user", "content": "Hi"},
        ],
    }
    headers = request.headers
    assert headers["authorization"] == "Bearer k"
    assert headers["accept"] == "text/event-stream"
    assert headers["content-type"] == "application/json"
    assert headers["accept-encoding"] == "identity"
    assert headers["x-title"] == "test"
    assert not {"origin", "referer"} & headers.keys()


def test_a_request_of_gemini() -> None:
    fields = {"generationConfig": {"temperature": 0}}
    (request,) = requests_of(
        Client.gemini(
            "tuned/mine",
            base_url="https://api.test/v1beta",
            api_key="k",
            system="Be kind.",
            fields=fields,
            trust_env=False,
        )
    )
    assert request.path.partition("?")[0] == "/v1beta/models/tuned%2Fmine:streamGenerateContent"
    assert request.body == {
        **fields,
        "systemInstruction": {"parts": [{"text": "Be kind.\n\nBe brief."}]},
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
    }
    assert request.headers["x-goog-api-key"] == "k"
    assert "key=k" not in json.dumps(dict(request.headers)) + request.path


@every_model_api
async def test_details_of_a_reply(api: Api) -> None:
    facts = ("length", USAGE)
    async with scripted_site(SAYS) as site, api.client(site.url) as client:
        reply = await client.ask("hi")
        assert (reply.finish_reason, reply.usage) == facts
        async with client.stream("hi") as chunks:
            assert await chunks.receive() == "one"
            await chunks.read()
            assert (chunks.finish_reason, chunks.usage) == facts
        send, receive = anyio.create_memory_object_stream[str](9)
        with receive:
            reply = await client.stream_to("hi", send)
        assert (reply.text, reply.finish_reason, reply.usage) == ("onetwo", *facts)
        reply = await Conversation(client).ask("hi")
        assert (reply.finish_reason, reply.usage) == facts


@every_model_api
async def test_no_details_before_the_end(api: Api) -> None:
    async with scripted_site([Raw(api.head + api.said("one")), Hang()]) as site:
        async with api.client(site.url) as client, client.stream("hi") as chunks:
            assert await chunks.receive() == "one"
            assert (chunks.finish_reason, chunks.usage) == (None, None)


@every_model_api
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_details_of_a_reply_in_sync(api: Api) -> None:
    def use(url: str) -> None:
        for backend in ("asyncio", "trio"):
            with SyncClient.of(api.client(url), backend=backend) as client:
                reply = client.ask("hi")
                assert (reply.finish_reason, reply.usage) == ("length", USAGE)
                with client.stream("hi") as chunks:
                    assert "".join(chunks) == "onetwo"
                assert (chunks.finish_reason, chunks.usage) == ("length", USAGE)
                assert client.conversation().ask("hi").usage == USAGE

    async with live_site(SAYS) as site:
        await anyio.to_thread.run_sync(use, site.url)


@every_model_api
async def test_check_password_is_not_supported(api: Api) -> None:
    async with scripted_site("ok") as site, api.client(site.url) as client:
        with pytest.raises(TypeError, match="only a GPROChat site can check a password"):
            await client.check_password()
        assert not site.requests
