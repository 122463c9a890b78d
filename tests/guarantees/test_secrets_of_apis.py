"""Errors and logs contain no API key and no prompt, even if the server echoes the key."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest
from guarantees.test_secrets import KEY, PROMPT, assert_clean, fail, frames_of_the_library
from support.apis import Api, every_model_api
from support.http_libraries import EACH_LIBRARY
from support.proxies import proxying
from support.response_bytes import LAST_CHUNK, answer, chunk, reply_head
from support.retries import ONCE
from support.scripted import Endless
from support.servers import Request as Sent
from support.servers import repeating, serving

from gprochat_anyio import (
    AuthenticationError,
    Client,
    GPROChatError,
    InsecureSiteWarning,
    Retry,
    Timeouts,
    UnexpectedResponseError,
)
from gprochat_anyio._request.chat_client import opener_of
from gprochat_anyio.testing import (
    Drop,
    Hang,
    Raw,
    Refuse,
    Reply,
    Request,
    Say,
    Script,
    at_every_checkpoint,
    live_site,
)

SAID = f"the key {KEY} is wrong, and so is {PROMPT[:6]}"
_EVENTS = reply_head("text/event-stream")


def json_of(status: int, value: Any, **fields: str) -> Raw:
    fields = {"Content-Type": "application/json", **fields}
    return Raw(answer(status, json.dumps(value).encode(), fields))


def in_stream(data: str, *, kind: str = "data") -> Raw:
    return Raw(_EVENTS + chunk(f"{kind}: {data}\n\n".encode()) + LAST_CHUNK)


ERROR = {"error": {"message": SAID, "code": KEY, "type": f"a {KEY}", "status": KEY}}
FAILURES: dict[str, Reply] = {
    "refused": Drop(reset=True),
    **{f"status {status}": Refuse(status, SAID, code=KEY) for status in (400, 401, 403, 429, 500)},
    "code": json_of(400, ERROR),
    "an error that is text": json_of(404, {"error": SAID}),
    "no error": json_of(404, {"detail": SAID}),
    "no JSON": Raw(answer(503, SAID.encode(), {"Content-Type": f"text/{KEY}"})),
    "a reason phrase": Raw(f"HTTP/1.1 404 {KEY}\r\nContent-Length: 0\r\n\r\n".encode()),
    "a status line": Raw(f"{KEY} 404 OK\r\n\r\n".encode()),
    "a broken field": Raw(f"HTTP/1.1 200 OK\r\n{KEY}\r\n\r\n".encode()),
    "a content type": Raw(answer(200, b"", {"Content-Type": f"text/{KEY}"})),
    "an encoding": Raw(answer(200, b"", {"Content-Encoding": KEY})),
    "a redirect": Raw(answer(307, b"", {"Location": f"https://{KEY}/"})),
    "JSON": json_of(200, ERROR),
    "a broken chunk": Raw(_EVENTS + f"{KEY}\r\n".encode()),
    "an event": in_stream(json.dumps(ERROR)),
    "an event of an error": in_stream(SAID, kind="error"),
    "an event that is not JSON": in_stream(SAID),
    "an endless event": Endless(_EVENTS, chunk(KEY.encode() * 500)),
    "after text": [Say("one"), Raw(chunk(f"data: {json.dumps(ERROR)}\n\n".encode()) + LAST_CHUNK)],
    "interrupted after text": [Say("one"), Drop()],
    "first_chunk": Hang(),
    "idle": [Say("one"), Hang()],
}


@every_model_api
@pytest.mark.parametrize("failure", FAILURES)
async def test_errors_and_logs_hold_no_key(
    api: Api, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    settings: dict[str, Any] = {"api_key": KEY, "timeouts": Timeouts(first_chunk=0.05, idle=0.05)}
    shown: list[str] = []
    with anyio.fail_after(20):
        async with live_site(FAILURES[failure]) as site:
            retry = Retry(attempts=2, backoff=0)
            async with api.client(site.url, retry=retry, **settings) as client:
                for way in ("ask", "stream", "stream_to", "gather", "fan_out", "race"):
                    with pytest.raises(GPROChatError) as caught:
                        await fail(client, way, PROMPT)
                    failed = caught.value
                    assert failed.__cause__ is failed.__context__ is None
                    shown += [str(failed), repr(failed), str(vars(failed))]
                    shown += [pickle.dumps(failed).decode("latin-1"), frames_of_the_library(failed)]
                    shown += getattr(failed, "__notes__", [])
                shown += [repr(client), str(client), client.url, str(client.model)]
            assert {request.prompt for request in site.requests} == {PROMPT}
            assert any(KEY in text for text in site.requests[0].headers.values())
    assert_clean(*shown, caplog.text)


@every_model_api
@pytest.mark.parametrize("kind", ["http", "tunnel"])
async def test_a_proxy_does_not_get_the_key(api: Api, kind: str, caplog: Any) -> None:
    """Even with a proxy that refuses, and with one that is the server that echoes the key."""
    caplog.set_level(logging.DEBUG)
    scheme = "http" if kind == "http" else "https"
    requests: list[Sent] = []
    echo = answer(502, SAID.encode(), {"Content-Type": f"text/{KEY}"})
    shown: list[str] = []
    with anyio.fail_after(20):
        async with serving(repeating(echo, seen=requests)) as echoing:
            async with proxying(credentials=("me", "canary-of-the-password")) as refusing:
                for port in (refusing.port, echoing.port):
                    url = f"{scheme}://site.test"
                    proxy = f"http://me:x@127.0.0.1:{port}"
                    async with api.client(url, api_key=KEY, proxy=proxy, retry=ONCE) as client:
                        with pytest.raises(GPROChatError) as caught:
                            await client.ask(PROMPT)
                        shown += [repr(caught.value), frames_of_the_library(caught.value)]
                        shown += [str(vars(caught.value)), repr(client)]
    assert_clean(*shown, caplog.text)
    assert len(requests) == 1
    assert any(KEY in value for value in requests[0].headers.values()) == (kind == "http")


@every_model_api
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(api: Api, status: int) -> None:
    async with live_site("stolen") as other:
        redirect = Raw(answer(status, b"", {"Location": other.url}))
        async with live_site(redirect) as site:
            async with api.client(site.url, api_key=KEY, retry=ONCE) as client:
                with pytest.raises(UnexpectedResponseError, match="redirect"):
                    await client.ask(PROMPT)
            assert len(site.requests) == 1
        assert other.connections == 0


@EACH_LIBRARY
@every_model_api
@pytest.mark.parametrize("script", [Drop(reset=True), Refuse(401, SAID), "ok"])
async def test_another_transport(api: Api, library: Any, script: Reply, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    async with live_site(script) as site:
        transport = library.AsyncHTTPTransport()
        client = api.client(site.url, api_key=KEY, transport=transport, retry=ONCE)
        async with client:
            failed: GPROChatError | None = None
            try:
                assert (await client.ask(PROMPT)).text == "ok"
            except GPROChatError as refused:
                failed = refused
    assert (failed is None) == (script == "ok")
    if failed is not None:
        assert_clean(frames_of_the_library(failed), repr(failed), str(vars(failed)))
        assert failed.__cause__ is failed.__context__ is None
    assert_clean(caplog.text)


@every_model_api
async def test_a_cancellation_anywhere_holds_no_key(api: Api) -> None:
    cancelled: list[BaseException] = []

    async def once() -> None:
        try:
            async with api.client(site.url, api_key=KEY) as client:
                await fail(client, "stream", PROMPT)
        except BaseException as error:
            cancelled.append(error)
            raise

    async with live_site("ok") as site:
        for cancel in at_every_checkpoint():
            await cancel(once)
    assert len(cancelled) >= 3
    shown = [frames_of_the_library(error) for error in cancelled]
    assert any("NativeSender" in text for text in shown)  # includes the frames that send
    assert_clean(*shown)


@every_model_api
def test_header_fields_show_no_key(api: Api) -> None:
    """Frames that send have them as local variables."""
    address = opener_of(api.client("https://host", api_key=KEY)).address
    assert address is not None
    assert any(KEY in value for value in address.headers.values())
    assert_clean(repr(address.headers), repr(address.head("/")), repr(address))


async def test_a_refusal_with_a_part_of_the_key_is_not_shown() -> None:
    said = f"Incorrect API key provided: {KEY[:9]}***{KEY[-4:]}"
    async with live_site(Refuse(401, said)) as site:
        async with Client.openai(site.url, model="m", api_key=KEY) as client:
            with pytest.raises(AuthenticationError, match="refused the API key") as caught:
                await client.ask("hi")
    assert KEY[:9] not in repr(vars(caught.value)) + str(caught.value)


async def test_a_site_that_echoes_its_request() -> None:
    """Debugging servers put all header fields into an error."""

    def repeat(request: Request) -> Script:
        return Refuse(400, json.dumps(dict(request.headers)))

    async with live_site(repeat) as site:
        for make in (partial(Client.openai, site.url, model="m"), of_gemini(site.url)):
            async with make(api_key=KEY) as client:
                with pytest.raises(GPROChatError, match="host") as caught:
                    await client.ask("hi")
            assert_clean(str(caught.value), str(vars(caught.value)))


def of_gemini(url: str) -> Callable[..., Client]:
    return partial(Client.gemini, base_url=url)


@pytest.mark.parametrize("bad", [f"{KEY}\n", f"{KEY} x", f"{KEY}é", [KEY], 7])
def test_an_invalid_key_is_not_shown(bad: Any) -> None:
    for make in (partial(Client.openai, "https://host", model="m"), of_gemini("https://host")):
        with pytest.raises(ValueError, match="api_key") as caught:
            make(api_key=bad)
        assert_clean(repr(caught.value), frames_of_the_library(caught.value))
        assert caught.value.__cause__ is caught.value.__context__ is None


@every_model_api
@pytest.mark.parametrize(
    "settings",
    [
        {"url": f"https://user:{KEY}@host"},
        {"url": "host"},
        {"url": f"https://host/?key={KEY}"},
        {"proxy": f"gopher://user:{KEY}@host"},
        {"system": [KEY]},
        {"fields": {"a": object(), "b": KEY}},
        {"model": ""},
        {"timeouts": 1},
        {"url": "http://host"},  # a warning, raised as an error
    ],
)
def test_an_invalid_setting_shows_no_key(api: Api, settings: dict[str, Any]) -> None:
    with pytest.raises((ValueError, InsecureSiteWarning)) as caught:
        api.client(**{"url": "https://host", "api_key": KEY, **settings})
    assert_clean(repr(caught.value), frames_of_the_library(caught.value))
    assert caught.value.__cause__ is caught.value.__context__ is None
