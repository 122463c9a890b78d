"""Replies as HTTP responses, for Starlette and FastAPI, on asyncio and Trio."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import ceil
from typing import Any

import anyio
from anyio.abc import TaskGroup
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
async def lifespan(
    _: ASGIApp,
) -> AsyncIterator[dict[str, Client]]:
    """Open `request.state.client`, for all requests."""
    async with Client.from_env(
        max_connections=100,
        timeouts=LIMITS,
    ) as client:
        yield {"client": client}


class TextResponse(StreamingResponse):
    """A plain text reply, opened before the status is sent."""

    media_type = "text/plain"

    def __init__(self, chunks: ReplyStream) -> None:
        super().__init__(chunks)
        self._chunks = chunks

    async def __call__(
        self,
        scope: Scope,  # noqa: ARG002
        receive: Receive,
        send: Send,
    ) -> None:
        """Stream the reply, and close it upon a disconnect."""
        failure: GPROChatError | None = None
        async with anyio.create_task_group() as tg:
            tg.start_soon(cancel_on_disconnect, tg, receive)
            try:
                # sends the request; waits for the first text
                async with self._chunks:
                    await self.stream_response(send)
            except GPROChatError as error:
                # a task group raises exception groups
                failure = error
            except OSError:
                # some servers' `send`, after a disconnect
                pass
            tg.cancel_scope.cancel()
        if failure is not None:
            raise failure


class EventsResponse(TextResponse):
    """A reply as events: `text`, then `done` or `error`."""

    media_type = "text/event-stream"

    async def stream_response(self, send: Send) -> None:
        """Send the status, then one event for each text."""

        async def event(name: str, data: Any) -> None:
            line = json.dumps(data)
            lines = f"event: {name}\ndata: {line}\n\n"
            await send(
                {
                    "type": "http.response.body",
                    "body": lines.encode(),
                    "more_body": name == "text",
                }
            )

        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": self.raw_headers,
            }
        )
        try:
            async for text in self._chunks:
                await event("text", text)
        except GPROChatError as error:
            await event("error", status_of(error)[1])
        else:
            await event("done", None)


async def cancel_on_disconnect(
    tg: TaskGroup,
    receive: Receive,
) -> None:
    """Cancel a task group once the web client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass
    tg.cancel_scope.cancel()


def status_of(error: GPROChatError) -> tuple[int, str]:
    """Return the HTTP status and the message for an error."""
    match error:
        case InvalidPromptError():
            return 422, str(error)
        case RateLimitError():
            return 429, "too many requests; ask again later"
        case RequestTimeoutError():
            return 504, "the model took too long"
        case _:
            # AuthenticationError, too: the web client cannot
            # correct the server's key
            return 502, "the model failed"


async def on_failure(
    _: Request,
    error: Exception,
) -> JSONResponse:
    """Respond to an error before the first text."""
    assert isinstance(error, GPROChatError)
    status, message = status_of(error)
    headers = {}
    seconds = getattr(error, "retry_after", None)
    if seconds is not None:
        headers["Retry-After"] = str(ceil(seconds))
    return JSONResponse({"error": message}, status, headers)


class AtMost:
    """Middleware that limits the number of open requests."""

    def __init__(self, app: ASGIApp, *, requests: int) -> None:
        self._app = app
        self._slots = anyio.Semaphore(requests)

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Forward a request if a slot is free."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._slots.acquire_nowait()
        except anyio.WouldBlock:
            full = JSONResponse(
                {"error": "busy; ask again"},
                status_code=503,
                headers={"Retry-After": "1"},
            )
            await full(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._slots.release()
