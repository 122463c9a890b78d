"""The endpoints of docs/how-to/web-endpoints.md, and its statements about web frameworks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from replies import AtMost, TextResponse
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from support.blocked import all_tasks_blocked
from support.embedded_site import PACKAGE_PATH, embedded_site
from support.http_libraries import httpx
from support.loops import LOOPS
from support.response_bytes import REPLY_HEAD, chunk
from support.scripted import Endless
from support.servers import open_sockets
from support.web_endpoints import WEB, WebClient, application, served

from gprochat_anyio import Client, GPROChatError, RequestTimeoutError, Retry, Timeouts
from gprochat_anyio.testing import (
    Drop,
    Hang,
    Raw,
    Refuse,
    Reply,
    Say,
    Script,
    ScriptedSite,
    Step,
    live_site,
)

BOTH_WAYS = pytest.mark.parametrize("path", ["/text", "/events"])

SERVERS = pytest.mark.parametrize(
    ("server", "anyio_backend"),
    [
        pytest.param(server, *loop.values, id=f"{server}-{loop.id}")
        for server in ("uvicorn", "hypercorn")
        for loop in LOOPS
        if (server, loop.id) != ("uvicorn", "trio")
    ],
    indirect=["anyio_backend"],
)


@pytest.fixture(params=["starlette_app", "fastapi_app"])
def app(request: pytest.FixtureRequest) -> Any:
    """An application of examples/web, for each framework."""
    return application(request.param)


@asynccontextmanager
async def upstream(*replies: Reply, **settings: Any) -> AsyncIterator[tuple[Client, ScriptedSite]]:
    """Yield a client with one connection, and its site."""
    settings = {"retry": Retry(attempts=1), "max_connections": 1} | settings
    with anyio.fail_after(20):
        async with live_site(*replies) as site, site.client(**settings) as client:
            yield client, site


async def assert_closed(site: ScriptedSite, client: Client) -> None:
    """Assert that the connection to the site is closed and its slot free."""
    assert open_sockets(int(site.url.rpartition(":")[2])) == 0
    await site.until(lambda: not site.open_connections)
    assert (await client.ask("next")).text == "whole"


def events_of(body: bytes) -> list[tuple[str, Any]]:
    """Return the events of a response, read by an SSE library."""
    sse = pytest.importorskip("httpx_sse", exc_type=ImportError)
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)
    return [(event.event, event.json()) for event in sse.EventSource(response).iter_sse()]


# In process: a scripted ASGI server, on every event loop.


async def test_text_is_sent_as_it_arrives(app: Any) -> None:
    more = anyio.Event()
    async with upstream([Say("one\n"), more.wait, Say("two")]) as (client, _):
        web = WebClient(client)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(web.run, app)
            await web.has_text.wait()
            assert (web.status, web.body, web.ended) == (200, b"one\n", False)
            assert web.headers["content-type"] == "text/plain; charset=utf-8"
            more.set()
        assert (web.body, web.ended) == (b"one\ntwo", True)


async def test_events(app: Any) -> None:
    """A text with line ends and non-ASCII letters is one event."""
    async with upstream([Say("one\n\ntwo\r\u2028"), Say("zwölf")]) as (client, _):
        web = WebClient(client, path="/events")
        await web.run(app)
    assert web.headers["content-type"].startswith("text/event-stream")
    *texts, last = events_of(web.body)
    assert {name for name, _ in texts} == {"text"}
    assert "".join(text for _, text in texts) == "one\n\ntwo\r\u2028zwölf"
    assert last == ("done", None)
    assert web.ended


@BOTH_WAYS
@pytest.mark.parametrize(
    ("reply", "prompt", "status", "message"),
    [
        ("never sent", " ", 422, "a message is blank"),
        (Refuse(429, "slow down", retry_after=7), "hi", 429, "too many requests"),
        (Refuse(429, "slow down"), "hi", 429, "too many requests"),
        (Refuse(401, "wrong key"), "hi", 502, "the model failed"),
        (Refuse(500, "oh"), "hi", 502, "the model failed"),
        (Drop(), "hi", 502, "the model failed"),
        ("", "hi", 502, "the model failed"),
        (Raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"), "hi", 502, "the model failed"),
        (Hang(), "hi", 504, "the model took too long"),
    ],
)
async def test_errors_before_the_first_text(
    app: Any, path: str, reply: Any, prompt: str, status: int, message: str
) -> None:
    limits = Timeouts(first_chunk=0.1) if isinstance(reply, Hang) else Timeouts()
    async with upstream(reply, timeouts=limits) as (client, site):
        web = WebClient(client, path=path, prompt=prompt)
        await web.run(app)
        assert len(site.requests) == (status != 422)
    assert (web.status, web.ended) == (status, True)
    assert web.headers["content-type"] == "application/json"
    told = json.loads(web.body)["error"]
    assert told.startswith(message)
    assert "127.0.0.1" not in told  # must not reveal the site's address
    waits = isinstance(reply, Refuse) and reply.retry_after is not None
    assert web.headers.get("retry-after") == ("7" if waits else None)


FAILURES = [
    pytest.param(Drop(), "the model failed", id="interrupted"),
    pytest.param(Hang(), "the model took too long", id="idle"),
    pytest.param(Raw(chunk(b"Internal server error")), "the model failed", id="marked"),
]


@pytest.mark.parametrize(("end", "message"), FAILURES[:2])
@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
async def test_text_that_fails_after_the_first_is_never_complete(
    app: Any, end: Any, message: str, spec_version: str
) -> None:
    """The status has been sent, so the exception reaches the server, which closes the
    connection."""
    limits = Timeouts(idle=0.1) if isinstance(end, Hang) else Timeouts()
    async with upstream([Say("one"), end], timeouts=limits) as (client, _):
        web = WebClient(client, spec_version=spec_version)
        with pytest.raises(RuntimeError, match="response already started") as caught:
            await web.run(app)
        assert isinstance(caught.value.__cause__, GPROChatError)
    assert (web.status, web.body, web.ended) == (200, b"one", False)


@pytest.mark.parametrize(("end", "message"), FAILURES)
async def test_an_event_reports_a_failure_after_the_first_text(
    app: Any, end: Any, message: str
) -> None:
    script = [Raw(REPLY_HEAD + chunk(b"one")), end]
    if isinstance(end, Raw):
        script.append(Raw(b"0\r\n\r\n"))
    limits = Timeouts(idle=0.1) if isinstance(end, Hang) else Timeouts()
    async with upstream(script, timeouts=limits) as (client, _):
        web = WebClient(client, path="/events")
        await web.run(app)
    assert events_of(web.body) == [("text", "one"), ("error", message)]
    assert web.ended


@BOTH_WAYS
@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
@pytest.mark.parametrize("where", ["before the first text", "in receive", "in send"])
async def test_the_web_client_leaves(app: Any, path: str, where: str, spec_version: str) -> None:
    """The reply is closed immediately, wherever the endpoint waits, and nothing is raised."""
    script = [Hang()] if where == "before the first text" else [Say("one"), Hang()]
    async with upstream(script, "whole") as (client, site):
        web = WebClient(client, path=path, spec_version=spec_version, blocks=where == "in send")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(web.run, app)
            if where == "before the first text":
                await site.until(lambda: len(site.requests) == 1)
            else:
                await web.has_text.wait()
            web.leave()
        assert not web.ended
        await assert_closed(site, client)


@BOTH_WAYS
async def test_the_task_is_cancelled(app: Any, path: str) -> None:
    """A server that shuts down does this."""
    async with upstream([Say("one"), Hang()], "whole") as (client, site):
        web = WebClient(client, path=path)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(web.run, app)
            await web.has_text.wait()
            tasks.cancel_scope.cancel()
        await assert_closed(site, client)


@pytest.mark.slow
@BOTH_WAYS
async def test_a_slow_web_client_slows_the_site_down(app: Any, path: str) -> None:
    endless = Endless(REPLY_HEAD, chunk(b"x" * 1000), bound=50_000_000)
    async with upstream(endless, "whole") as (client, site):
        web = WebClient(client, path=path, blocks=True)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(web.run, app)
            await web.has_text.wait()
            await all_tasks_blocked()  # until the kernel's buffers are full
            web.leave()
        assert endless.taken < endless.bound
        await assert_closed(site, client)


async def test_the_number_of_requests_is_limited() -> None:
    async with upstream([Say("one"), Hang()], "whole", max_connections=2) as (client, _):

        async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
            await TextResponse(client.stream("hi"))(scope, receive, send)

        app = AtMost(endpoint, requests=1)
        first, second, third = WebClient(client), WebClient(client), WebClient(client)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.run, app)
            await first.has_text.wait()
            await second.run(app)
            first.leave()
        assert (second.status, second.headers["retry-after"]) == (503, "1")
        await third.run(app)
        assert (third.status, third.body) == (200, b"whole")


async def test_total_limits_the_wait_for_a_connection(app: Any) -> None:
    async with upstream([Say("one"), Hang()], timeouts=Timeouts(total=0.1)) as (client, site):
        async with client.stream("hi", timeouts=Timeouts(total=60)):
            web = WebClient(client)
            await web.run(app)
        assert web.status == 504
        assert len(site.requests) == 1


# The guide's statements about plain responses.


def plain_app(client: Client) -> Starlette:
    """Return an application whose response iterates over a generator around the stream."""

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        async def texts() -> AsyncGenerator[str, None]:
            async with client.stream("hi") as chunks:
                async for text in chunks:
                    yield text

        await StreamingResponse(texts(), media_type="text/plain")(scope, receive, send)

    app = Starlette()
    app.mount("/", endpoint)
    return app


async def test_a_generator_sends_its_status_before_the_request() -> None:
    async with upstream(Refuse(429, "slow down")) as (client, _):
        web = WebClient(client)
        with pytest.raises(GPROChatError):
            await web.run(plain_app(client))
    assert (web.status, web.body, web.ended) == (200, b"", False)


async def test_a_timeout_within_a_generator_passes_for_a_disconnect() -> None:
    """A server with ASGI 2.4 takes it for an OSError, because it is a TimeoutError."""
    async with upstream([Say("one"), Hang()], timeouts=Timeouts(idle=0.1)) as (client, _):
        with pytest.raises(ClientDisconnect):
            await WebClient(client, spec_version="2.4").run(plain_app(client))
        with pytest.raises(RequestTimeoutError):
            await WebClient(client, spec_version="2.3").run(plain_app(client))


# Real servers: sockets from the web client to the site.


@asynccontextmanager
async def deployed(
    app: Any, server: str, monkeypatch: pytest.MonkeyPatch, *replies: Reply
) -> AsyncIterator[tuple[httpx.AsyncClient, ScriptedSite]]:
    """Serve an application that takes its site from the environment. Yield a web client, and the
    site."""
    with anyio.fail_after(30):
        async with live_site(*replies) as site:
            monkeypatch.setenv("GPROCHAT_URL", site.url)
            for name in ("GPROCHAT_SECRET_KEY", "GPROCHAT_PASSWORD"):
                monkeypatch.delenv(name, raising=False)
            async with served(app, server) as (url, _):
                async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as web:
                    yield web, site
            assert not site.open_connections  # closed by the application's lifespan


@SERVERS
async def test_served(app: Any, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text arrives as it is sent, over one persistent connection to the site."""
    more = anyio.Event()
    script: Script = [Say("one"), more.wait, Say("two")]
    async with deployed(app, server, monkeypatch, script, "three") as (web, site):
        async with web.stream("POST", "/text", json={"prompt": "hi"}) as response:
            texts = response.aiter_text()
            assert (response.status_code, await anext(texts)) == (200, "one")
            more.set()
            assert [text async for text in texts] == ["two"]
        response = await web.post("/events", json={"prompt": "hi"})
        assert events_of(response.content) == [("text", "three"), ("done", None)]
        assert site.connections == 1


@SERVERS
async def test_served_errors(app: Any, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure before the first text is a status; after it, a broken response or an event."""
    broken: list[Step] = [Say("one"), Drop()]
    replies = (Refuse(401, "wrong key"), broken, broken, "whole")
    async with deployed(app, server, monkeypatch, *replies) as (web, _):
        response = await web.post("/text", json={"prompt": "hi"})
        assert (response.status_code, response.json()) == (502, {"error": "the model failed"})

        async with web.stream("POST", "/text", json={"prompt": "hi"}) as response:
            assert response.status_code == 200
            with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
                await response.aread()

        response = await web.post("/events", json={"prompt": "hi"})
        assert events_of(response.content) == [("text", "one"), ("error", "the model failed")]
        assert (await web.post("/text", json={"prompt": "hi"})).text == "whole"


@SERVERS
@BOTH_WAYS
@pytest.mark.parametrize("has_text", [False, True], ids=["before the first text", "after it"])
async def test_a_client_of_a_server_leaves(
    app: Any, server: str, monkeypatch: pytest.MonkeyPatch, path: str, *, has_text: bool
) -> None:
    script = [Say("one"), Hang()] if has_text else [Hang()]
    async with deployed(app, server, monkeypatch, script, "whole") as (web, site):
        async with anyio.create_task_group() as tasks:
            arrived = anyio.Event()

            async def ask() -> None:
                async with web.stream("POST", path, json={"prompt": "hi"}) as response:
                    async for text in response.aiter_text():
                        assert "one" in text
                        arrived.set()

            tasks.start_soon(ask)
            await (arrived.wait() if has_text else site.until(lambda: len(site.requests) == 1))
            tasks.cancel_scope.cancel()
        await site.until(lambda: not site.open_connections)
        assert (await web.post("/text", json={"prompt": "hi"})).text == "whole"


@pytest.mark.slow
@SERVERS
async def test_a_server_shuts_down(
    app: Any, server: str, monkeypatch: pytest.MonkeyPatch, anyio_backend: tuple[str, Any]
) -> None:
    """After its grace period, it cancels the endpoint, which closes the reply."""
    if (server, anyio_backend) == ("hypercorn", ("asyncio", {})) and sys.version_info >= (3, 12):
        pytest.skip("Hypercorn waits for its connections first, as asyncio's wait_closed does")
    with anyio.fail_after(30):
        async with live_site([Say("one"), Hang()]) as site:
            monkeypatch.setenv("GPROCHAT_URL", site.url)
            async with served(app, server) as (url, stop):
                async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as web:
                    async with web.stream("POST", "/text", json={"prompt": "hi"}) as response:
                        texts = response.aiter_text()
                        assert await anext(texts) == "one"
                        stop.set()
                        with pytest.raises(httpx.RemoteProtocolError):
                            await anext(texts)
            assert not site.open_connections


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["-m", "uvicorn", "--app-dir", str(WEB), "fastapi_app:app", "--port", "PORT"],
        ["-m", "hypercorn", "--worker-class", "trio", "starlette_app:app", "-b", "127.0.0.1:PORT"],
        ["serve_on_trio.py", "127.0.0.1:PORT"],
    ],
    ids=["uvicorn", "hypercorn", "serve_on_trio.py"],
)
def test_commands(command: list[str]) -> None:
    """They work as written, on the test's own ports."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    with embedded_site() as environment:
        process = subprocess.Popen(  # noqa: S603 - our own code
            [sys.executable, *(word.replace("PORT", port) for word in command)],
            cwd=WEB,
            env=environment | {"PYTHONPATH": f"{PACKAGE_PATH}{os.pathsep}{WEB}"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            transport = httpx.HTTPTransport(retries=7)  # with growing delays: 32 s in total
            with httpx.Client(transport=transport, trust_env=False, timeout=20) as web:
                url = f"http://127.0.0.1:{port}/events"
                response = web.post(url, json={"prompt": "Hello"})
            assert response.text.startswith("event: text\ndata: ")
            assert response.text.endswith("event: done\ndata: null\n\n")
        finally:
            process.terminate()  # Hypercorn then ends its worker processes
            process.wait(20)
