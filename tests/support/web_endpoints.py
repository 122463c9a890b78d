"""Endpoints of examples/web: in process, with clients that may leave, and behind real servers."""

from __future__ import annotations

import json
import logging
import runpy
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import hypercorn.asyncio
import hypercorn.trio
import trio
import uvicorn
from anyio.lowlevel import checkpoint
from hypercorn.config import Config

from gprochat_anyio import Client

from .embedded_site import ROOT

WEB = ROOT / "examples" / "web"

App = Callable[[Any, Any, Any], Awaitable[None]]


def application(name: str) -> Any:
    """Return a fresh application of an example."""
    return runpy.run_path(str(WEB / f"{name}.py"))["app"]


class WebClient:
    """A client of an application, in process, for one request.

    :param spec_version: The ASGI version. From 2.4 on, `send` raises once the client has left.
    :param blocks: True if `send` blocks once it has the first text, as for a slow client.
    """

    def __init__(
        self,
        client: Client,
        *,
        path: str = "/text",
        prompt: str = "hi",
        spec_version: str = "2.3",
        blocks: bool = False,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = []
        self.ended = False
        """True once the response is complete."""
        self.has_text = anyio.Event()
        self._left = anyio.Event()
        self._blocks = blocks
        self._request: list[dict[str, Any]] = [
            {"type": "http.request", "body": json.dumps({"prompt": prompt}).encode()}
        ]
        fields = {"host": "app.test", "content-type": "application/json"} | (headers or {})
        self._spec_version = spec_version
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": spec_version},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": {"client": client},
        }

    @property
    def body(self) -> bytes:
        """The part of the body that has arrived."""
        return b"".join(self.pieces)

    def leave(self) -> None:
        """Close the connection."""
        self._left.set()

    async def run(self, app: App) -> None:
        """Send the request, and receive the response."""
        await app(self._scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        if self._request:
            return self._request.pop()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        await checkpoint()
        if self._left.is_set() and self._spec_version >= "2.4":
            raise OSError("the client has left")
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        if body := message.get("body", b""):
            self.pieces.append(body)
            self.has_text.set()
            if self._blocks:
                await anyio.sleep_forever()
        self.ended = not message.get("more_body", False)


@asynccontextmanager
async def served(app: Any, server: str) -> AsyncIterator[tuple[str, anyio.Event]]:
    """Serve an application on 127.0.0.1. Yield its URL, and an event that starts the shutdown."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with anyio.CancelScope() as end:
        async with anyio.create_task_group() as tasks:
            serve = _uvicorn if server == "uvicorn" else _hypercorn
            stop = anyio.Event()
            tasks.start_soon(serve, app, listener, stop)
            try:
                yield url, stop
            finally:
                stop.set()
                end.deadline = anyio.current_time() + 10


async def _uvicorn(app: Any, listener: socket.socket, stop: anyio.Event) -> None:
    config = uvicorn.Config(app, lifespan="on", log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with listener:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(server.serve, sockets=[listener]))
            await stop.wait()
            server.should_exit = True


async def _hypercorn(app: Any, listener: socket.socket, stop: anyio.Event) -> None:
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = logging.getLogger("hypercorn of a test")
    config.graceful_timeout = 1
    library: Any = hypercorn.trio if trio.lowlevel.in_trio_run() else hypercorn.asyncio
    await library.serve(app, config, shutdown_trigger=stop.wait)
