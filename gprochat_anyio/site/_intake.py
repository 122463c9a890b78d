"""Takes a request in before the application sees it, and stops the application with its client."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from anyio import create_task_group, move_on_after, sleep_forever
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gprochat_anyio._wire.admission import WireResponse, error_response

BODY_SECONDS: Final = 60.0
"""How long a client may take to send its body."""

_TOO_LARGE: Final = error_response(413, "The request is too large.")
_TOO_SLOW: Final = error_response(408, "The request took too long to arrive.")


class _ClientGoneError(Exception):
    """The client went away before its body was complete."""


class Intake:
    """ASGI middleware: reads the whole body, then runs the application until the client leaves.

    The application is cancelled as soon as the server reports the client gone, at whatever it
    waits for; it need not watch `receive` itself. Reading goes on meanwhile whatever the
    application does, because a server that can not hand over what a client sends may block.

    :param body_limit: in bytes; a larger body is read, thrown away and answered with 413
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

        ending = False

        async def send_on(message: Message) -> None:
            nonlocal ending
            # A server reports the client gone once the answer is complete, too, and may still have
            # to tidy up in `send` then.
            ending = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            if not ending:
                tg.cancel_scope.cancel()

        async with create_task_group() as tg:
            tg.start_soon(watch)
            with suppress(OSError):  # what some servers' `send` raises once the client has gone
                await app(scope, replay, send_on)
            tg.cancel_scope.cancel()

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
        # To the end first: a client that is still sending would see a reset and not the answer.
        if len(body) > self._body_limit:
            return _TOO_LARGE
        return _TOO_SLOW if clock.cancelled_caught else bytes(body)


def to_response(whole: WireResponse) -> Response:
    """Return a whole response for Starlette, chunked like all that the original site sends."""
    headers = {} if whole.content_type is None else {"content-type": whole.content_type}
    response = Response(whole.body, whole.status, headers)
    del response.headers["content-length"]
    return response
