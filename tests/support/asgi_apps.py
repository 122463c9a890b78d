"""Small ASGI applications, and the events of their responses."""

from __future__ import annotations

from typing import Any

from starlette.types import Message, Receive, Scope, Send

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
START: Message = {"type": "http.response.start", "status": 200, "headers": []}
END: Message = {"type": "http.response.body", "body": b"ok"}


def part(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


def handling(handle: Any) -> Any:
    """Return an application that calls its handler with each request."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await handle(scope, receive, send)

    return app


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    await send(START)
    await send(END)
