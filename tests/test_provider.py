"""The original provider's interface."""

from __future__ import annotations

import gc
import json
import warnings
from contextlib import aclosing
from typing import Any

import anyio
import pytest
from support.prompted import closed
from support.scripted import reply
from support.servers import Request, repeating, serving

from gprochat_anyio import GPROChat, InvalidPromptError, ReplyInterruptedError, Timeouts
from gprochat_anyio._wire.gprochat import sign
from gprochat_anyio.testing import Drop, Hang, Say, live_site

HELLO = [{"role": "user", "content": "Привет, как дела?"}]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GPROCHAT_URL", "GPROCHAT_SECRET_KEY", "GPROCHAT_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


def test_attributes() -> None:
    assert GPROChat.working is False  # the public site no longer exists
    assert GPROChat.supports_stream
    assert GPROChat.supports_message_history
    assert GPROChat.default_model == "gemini-1.5-pro"
    assert isinstance(GPROChat.url, str)
    assert GPROChat.api_endpoint.endswith("/api/generate")


def test_generate_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    assert GPROChat.generate_signature(7, "m") == sign(7, "m", "")
    assert GPROChat.generate_signature(7, "m", "k") == sign(7, "m", "k")
    monkeypatch.setenv("GPROCHAT_SECRET_KEY", "env")
    assert GPROChat.generate_signature(7, "m") == sign(7, "m", "env")
    assert GPROChat.generate_signature(7, "m", "") == sign(7, "m", "")


async def test_calls_of_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [Say("При"), Say("вет".encode()[:1]), Say("вет".encode()[1:])]
    async with live_site(pieces, secret_key="k", password="p") as site:
        monkeypatch.setenv("GPROCHAT_URL", site.url)
        monkeypatch.setenv("GPROCHAT_SECRET_KEY", "k")
        monkeypatch.setenv("GPROCHAT_PASSWORD", "p")
        text = ""
        async for piece in GPROChat().create_async_generator(
            model="gemini-1.5-pro", messages=HELLO, stream=True
        ):
            text += piece
        assert text == "Привет"
        body = site.requests[0].body
        assert body["messages"] == [{"role": "user", "parts": [{"text": "Привет, как дела?"}]}]
        assert body["pass"] == "p"
        assert body["sign"] == GPROChat.generate_signature(body["time"], "Привет, как дела?", "k")
        await closed(site)


async def test_the_history_is_flattened() -> None:
    history = [*HELLO, {"role": "assistant", "content": "Хорошо"}, *HELLO]
    async with live_site("ok", secret_key="k", password="p") as site:
        pieces = GPROChat.create_async_generator(
            "", history, url=site.url, secret_key="k", password="p"
        )
        assert [piece async for piece in pieces] == ["ok"]
        body = site.requests[0].body
        flat = "User: Привет, как дела?\nAssistant: Хорошо\nUser: Привет, как дела?\nAssistant:"
        assert body["messages"] == [{"role": "user", "parts": [{"text": flat}]}]
        assert body["sign"] == sign(body["time"], flat, "k")
        assert body["pass"] == "p"


@pytest.mark.parametrize(
    ("attributes", "path"),
    [
        ({"url": "{url}"}, "/api/generate"),
        ({"url": "{url}/sub/"}, "/sub/api/generate"),
        ({"url": "{url}", "api_endpoint": "{url}/v2/generate"}, "/v2/generate"),
        ({"api_endpoint": "{url}/v2/generate"}, "/v2/generate"),
        ({"url": "http://elsewhere", "api_endpoint": "{url}/v2/generate"}, "/v2/generate"),
        ({"url": "{url}", "api_endpoint": "v3/generate"}, "/v3/generate"),
        ({"url": "{url}", "api_endpoint": "\u00e9/\u65e5?x=%20 1"}, "/%C3%A9/%E6%97%A5?x=%20%201"),
    ],
)
async def test_subclasses(attributes: dict[str, str], path: str) -> None:
    requests: list[Request] = []
    async with serving(repeating(reply("ok"), seen=requests)) as site:
        made: Any = type(
            "Mine",
            (GPROChat,),
            {k: v.format(url=site.url) for k, v in attributes.items()} | {"secret_key": "sub"},
        )
        assert [piece async for piece in made.create_async_generator("", HELLO)] == ["ok"]
    (request,) = requests
    assert (request.method, request.place) == ("POST", path)
    body = json.loads(request.body)
    assert body["sign"] == sign(body["time"], HELLO[0]["content"], "sub")


async def test_a_given_url_overrides_a_subclass() -> None:
    class Mine(GPROChat):
        url = "http://elsewhere"
        api_endpoint = "http://elsewhere/v2/generate"

    requests: list[Request] = []
    async with serving(repeating(reply("ok"), seen=requests)) as site:
        pieces = Mine.create_async_generator("", HELLO, url=site.url, timeouts=Timeouts(total=5))
        assert [piece async for piece in pieces] == ["ok"]
    assert (requests[0].method, requests[0].place) == ("POST", "/api/generate")


def test_no_site() -> None:
    with pytest.raises(ValueError, match="GPROCHAT_URL"):
        GPROChat.create_async_generator("", HELLO)


async def test_no_prompt() -> None:
    with pytest.raises(InvalidPromptError):
        await anext(GPROChat.create_async_generator("", [], url="http://host"))


async def test_typed_errors() -> None:
    async with live_site([Say("half"), Drop()]) as site:
        pieces = []
        with pytest.raises(ReplyInterruptedError) as caught:
            async for piece in GPROChat.create_async_generator("", HELLO, url=site.url):
                pieces.append(piece)  # noqa: PERF401 - the exception matters
        assert pieces == ["half"]
        assert caught.value.partial_text == "half"


async def test_closing_closes_the_connection_immediately() -> None:
    async with live_site([Say("half"), Hang()]) as site:
        async with aclosing(GPROChat.create_async_generator("", HELLO, url=site.url)) as pieces:
            assert await anext(pieces) == "half"
            assert site.open_connections == 1
        await closed(site)
        with pytest.raises(StopAsyncIteration):
            await anext(pieces)


async def test_no_scope_is_open_across_a_yield() -> None:
    """A generator that is suspended in one scope continues in another, in another task."""
    more = anyio.Event()
    async with live_site([Say("a"), more.wait, Say("b")]) as site:
        pieces = GPROChat.create_async_generator("", HELLO, url=site.url)
        with anyio.CancelScope():
            assert await anext(pieces) == "a"
        rest = []

        async def go_on() -> None:
            more.set()
            rest.extend([piece async for piece in pieces])

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(go_on)
        assert rest == ["b"]


@pytest.mark.slow
async def test_abandoned_to_the_garbage_collector() -> None:
    async with live_site([Say("a"), Hang()]) as site:
        pieces = GPROChat.create_async_generator("", HELLO, url=site.url)
        assert await anext(pieces) == "a"
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del pieces
            gc.collect()
            await closed(site)
        assert any(
            issubclass(w.category, ResourceWarning) and "aclosing" in str(w.message) for w in caught
        )


async def test_thrown_into() -> None:
    async with live_site([Say("a"), Hang()]) as site:
        pieces = GPROChat.create_async_generator("", HELLO, url=site.url)
        await anext(pieces)
        with pytest.raises(KeyError):
            await pieces.athrow(KeyError("mine"))
        await closed(site)


@pytest.mark.slow
async def test_never_iterated() -> None:
    GPROChat.create_async_generator("", HELLO, url="http://host")
    gc.collect()  # nothing was opened, so nothing warns
