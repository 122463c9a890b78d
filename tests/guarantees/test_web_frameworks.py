"""Streaming responses of Starlette and FastAPI: if the client leaves, the reply ends."""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import uvicorn
from anyio.lowlevel import checkpoint
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse as FastAPIStreamingResponse
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.routing import Route
from support.blocked import all_tasks_blocked
from support.loops import LOOPS
from support.servers import open_sockets

from gprochat_anyio import Client, ReplyStream
from gprochat_anyio.testing import Hang, Say, ScriptedSite, live_site, no_leaks

ON_ASYNCIO = pytest.mark.parametrize(
    "anyio_backend", [loop for loop in LOOPS if loop.id != "trio"], indirect=True
)

pytestmark = [
    # Trio warns of any generator that a framework drops
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
    # The stream warns too if it is found in a reference cycle together with its generator
    pytest.mark.filterwarnings("ignore:a ReplyStream was dropped:ResourceWarning"),
]

App = Callable[[Any, Any, Any], Any]


def starlette_app(client: Client) -> App:
    """Return an application that iterates over a generator around the stream."""

    async def answer(_: Request) -> StreamingResponse:
        async def pieces() -> AsyncGenerator[str, None]:
            async with client.stream("hi") as chunks:
                async for piece in chunks:
                    yield piece

        return StreamingResponse(pieces(), media_type="text/plain")

    return Starlette(routes=[Route("/", answer)])


def fastapi_app(client: Client) -> App:
    """Return the same with FastAPI."""
    app = FastAPI()

    @app.get("/")
    async def answer() -> FastAPIStreamingResponse:
        async def pieces() -> AsyncGenerator[str, None]:
            async with client.stream("hi") as chunks:
                async for piece in chunks:
                    yield piece

        return FastAPIStreamingResponse(pieces(), media_type="text/plain")

    return app


def fastapi_app_with_a_dependency(client: Client) -> App:
    """Return an application whose dependency with `yield` opens and closes the stream."""
    app = FastAPI()

    async def opened() -> AsyncIterator[ReplyStream]:
        async with client.stream("hi") as chunks:
            yield chunks

    @app.get("/")
    async def answer(chunks: Any = Depends(opened)) -> FastAPIStreamingResponse:  # noqa: B008, FAST002
        return FastAPIStreamingResponse(chunks, media_type="text/plain")

    return app


APPS = pytest.mark.parametrize(
    "make_app", [starlette_app, fastapi_app, fastapi_app_with_a_dependency]
)


class Browser:
    """A simulated ASGI server with one request, whose client leaves.

    :param spec_version: From 2.4 on, a server's `send` raises once the client has left. Before, an
        application has to listen for it.
    :param blocks: True if `send` blocks after the first text, as for a slow client.
    """

    def __init__(self, spec_version: str, *, blocks: bool = False) -> None:
        self.got = b""
        self.has_text = anyio.Event()
        self._spec_version = spec_version
        self._blocks = blocks
        self._asked = False
        self._left = anyio.Event()

    def leave(self) -> None:
        self._left.set()

    async def run(self, app: App) -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": self._spec_version},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"app.test")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": {},
        }
        await app(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if self._left.is_set() and self._spec_version >= "2.4":
            raise OSError("the client has left")
        if text := message.get("body", b""):
            self.got += text
            self.has_text.set()
            if self._blocks:
                await anyio.sleep_forever()


@asynccontextmanager
async def upstream(*steps: Any) -> AsyncIterator[tuple[Client, ScriptedSite]]:
    """Yield a client with one connection, and its site, whose reply does not end."""
    with anyio.fail_after(10):
        async with live_site([*steps, Hang()], "whole") as site:
            async with site.client(max_connections=1) as client:
                yield client, site


async def assert_closed(site: ScriptedSite, client: Client) -> None:
    """Assert that the connection to the site is closed and its slot free."""
    assert open_sockets(int(site.url.rpartition(":")[2])) == 0
    await site.until(lambda: not site.open_connections)
    assert (await client.ask("next")).text == "whole"


@APPS
@pytest.mark.parametrize("blocks", [False, True], ids=["in receive", "in send"])
async def test_the_client_disconnects(make_app: Callable[[Client], App], *, blocks: bool) -> None:
    """The framework cancels the task that iterates, wherever that waits."""
    async with upstream(Say("one")) as (client, site):
        app = make_app(client)
        async with no_leaks(grace=1):
            browser = Browser("2.3", blocks=blocks)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(browser.run, app)
                await browser.has_text.wait()
                await all_tasks_blocked()
                browser.leave()
            await ticks()
            assert open_sockets(int(site.url.rpartition(":")[2])) == 0
        assert browser.got == b"one"
        await assert_closed(site, client)


@APPS
async def test_sending_to_the_client_fails(make_app: Callable[[Client], App]) -> None:
    """The framework drops the iterator without closing it."""
    more = anyio.Event()
    async with upstream(Say("one"), more.wait, Say("two")) as (client, site):
        app = make_app(client)
        browser = Browser("2.4")

        async def run() -> None:
            with pytest.raises(ClientDisconnect):
                await browser.run(app)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await browser.has_text.wait()
            browser.leave()
            more.set()
        await ticks()
        await assert_closed(site, client)


async def ticks() -> None:
    """Let the event loop finalize dropped objects, including those in reference cycles."""
    gc.collect()
    for _ in range(5):
        await all_tasks_blocked()


@ON_ASYNCIO
@APPS
async def test_a_client_of_uvicorn_disconnects(make_app: Callable[[Client], App]) -> None:
    """Over real sockets, from the web client to the site."""
    async with upstream(Say("one")) as (client, site):
        config = uvicorn.Config(
            make_app(client), port=0, lifespan="off", log_config=None, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve)
            try:
                await get_one_and_leave(server)
                await site.until(lambda: not site.open_connections)
                assert (await client.ask("next")).text == "whole"
            finally:
                server.should_exit = True


async def get_one_and_leave(server: uvicorn.Server) -> None:
    while not server.started:
        await checkpoint()
    port = server.servers[0].sockets[0].getsockname()[1]
    async with await anyio.connect_tcp("127.0.0.1", port) as browser:
        await browser.send(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
        got = b""
        while b"one" not in got:
            got += await browser.receive()
