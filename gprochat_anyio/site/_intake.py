"""Middleware that buffers requests, and cancels the application if the client disconnects."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from anyio import create_task_group, move_on_after, sleep_forever
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gprochat_anyio._wire.admission import WireResponse, error_response

from ._asgi import CANCELS

BODY_SECONDS: Final = 60.0
"""Maximum time for a client to send its body, in seconds."""

_TOO_LARGE: Final = error_response(413, "The request is too large.")
_TOO_SLOW: Final = error_response(408, "The request took too long to arrive.")


class _ClientGoneError(Exception):
    """The client disconnected before its body was complete."""


class Intake:
    """ASGI middleware that reads the whole body, and then runs the application.

    The application is cancelled as soon as the server reports that the client has disconnected. It
    need not call `receive` for that. Meanwhile the middleware continues to receive, because some
    servers block if nobody reads the client's data. A server with the extension `CANCELS` does both
    itself.

    :param body_limit: Maximum size of the body, in bytes. A larger body is read and discarded; the
        response is 413.
    """

    def __init__(self, app: ASGIApp, *, body_limit: int) -> None:
        self._app = app
        self._body_limit = body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(receive)
        except _ClientGoneError:
            return
        app = to_response(body) if isinstance(body, WireResponse) else self._app
        pending = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            while not pending:
                await sleep_forever()
            return pending.pop()

        if CANCELS in scope.get("extensions", ()):
            await _run(app, scope, replay, send)
        else:
            await _run_until_disconnect(app, scope, replay, send, receive)

    async def _read(self, receive: Receive) -> bytes | WireResponse:
        body = bytearray()
        with move_on_after(BODY_SECONDS) as clock:
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _ClientGoneError
                if len(body) <= self._body_limit:
                    body += message.get("body", b"")
                more = message.get("more_body", False)
        # After the whole body: a client that is still sending would see a reset, not the response.
        if len(body) > self._body_limit:
            return _TOO_LARGE
        return _TOO_SLOW if clock.cancelled_caught else bytes(body)


async def _run(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    with suppress(OSError):  # raised by some servers if the client has disconnected
        await app(scope, receive, send)


async def _run_until_disconnect(
    app: ASGIApp, scope: Scope, replay: Receive, send: Send, receive: Receive
) -> None:
    ending = False

    async def send_on(message: Message) -> None:
        nonlocal ending
        # Servers report a disconnect after a complete response as well, while their `send` may
        # still be running.
        ending = message["type"] == "http.response.body" and not message.get("more_body")
        await send(message)

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if not ending:
            tg.cancel_scope.cancel()

    async with create_task_group() as tg:
        tg.start_soon(watch)
        await _run(app, scope, replay, send_on)
        tg.cancel_scope.cancel()


def to_response(whole: WireResponse) -> Response:
    """Return a response for Starlette. It is chunked, like every response of the original site."""
    headers = {} if whole.content_type is None else {"content-type": whole.content_type}
    response = Response(whole.body, whole.status, headers)
    del response.headers["content-length"]
    return response
