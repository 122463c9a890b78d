"""Replies as HTTP responses, for Starlette and FastAPI, on asyncio and Trio."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import ceil
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from gprochat_anyio import (
    Client,
    GPROChatError,
    InvalidPromptError,
    RateLimitError,
    ReplyStream,
    RequestTimeoutError,
    Timeouts,
)

LIMITS = Timeouts(first_chunk=20, total=120)


@asynccontextmanager
async def lifespan(_: ASGIApp) -> AsyncIterator[dict[str, Client]]:
    """Open one client for all requests: `request.state.client`."""
    async with Client.from_env(max_connections=100, timeouts=LIMITS) as client:
        yield {"client": client}


class TextResponse(StreamingResponse):
    """A reply as plain text. The reply is opened before the status is sent."""

    media_type = "text/plain"

    def __init__(self, chunks: ReplyStream) -> None:
        super().__init__(chunks)
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Stream the reply, and close it at once if the web client leaves."""
        failure: GPROChatError | None = None
        async with anyio.create_task_group() as tg:
            tg.start_soon(cancel_on_disconnect, tg.cancel_scope, receive)
            try:
                async with self._chunks:  # sends the request, and waits for the first text
                    await self.stream_response(send)
            except GPROChatError as error:
                failure = error  # the task group would put it into an ExceptionGroup
            except OSError:
                pass  # some servers' `send` raises it once the web client has left
            tg.cancel_scope.cancel()
        if failure is not None:
            raise failure


class EventsResponse(TextResponse):
    """A reply as server-sent events: `text`, then `done` or `error`."""

    media_type = "text/event-stream"

    async def stream_response(self, send: Send) -> None:
        """Send the status, and then an event for each text."""

        async def send_event(name: str, data: Any, *, more: bool) -> None:
            event = f"event: {name}\ndata: {json.dumps(data)}\n\n"
            body = {"type": "http.response.body", "body": event.encode(), "more_body": more}
            await send(body)

        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        try:
            async for text in self._chunks:
                await send_event("text", text, more=True)
        except GPROChatError as error:
            await send_event("error", status_of(error)[1], more=False)
        else:
            await send_event("done", None, more=False)


async def cancel_on_disconnect(scope: anyio.CancelScope, receive: Receive) -> None:
    """Cancel a scope once the web client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def status_of(error: GPROChatError) -> tuple[int, str]:
    """Return the status of an error, and a message for the web client."""
    match error:
        case InvalidPromptError():
            return 422, str(error)
        case RateLimitError():
            return 429, "too many requests; ask again later"
        case RequestTimeoutError():
            return 504, "the model took too long"
        case _:  # AuthenticationError too: the web client cannot correct the server's key
            return 502, "the model failed"


async def on_failure(_: Request, error: Exception) -> JSONResponse:
    """Respond to an error before the first text."""
    assert isinstance(error, GPROChatError)
    status, message = status_of(error)
    headers = {}
    if isinstance(error, RateLimitError) and error.retry_after is not None:
        headers["Retry-After"] = str(ceil(error.retry_after))
    return JSONResponse({"error": message}, status, headers)


class AtMost:
    """Middleware that responds 503 instead of letting too many requests wait."""

    def __init__(self, app: ASGIApp, *, requests: int) -> None:
        self._app = app
        self._slots = anyio.Semaphore(requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on if a slot is free."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._slots.acquire_nowait()
        except anyio.WouldBlock:
            full = JSONResponse({"error": "busy; ask again"}, 503, {"Retry-After": "1"})
            await full(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._slots.release()
