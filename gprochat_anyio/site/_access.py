"""The access log: one line for each request, without any of its text."""

from __future__ import annotations

import logging
import time
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger("gprochat_anyio.site.access")


class AccessLog:
    """ASGI middleware that logs requests at INFO to `gprochat_anyio.site.access`.

    A line contains the client's address, the method, the path without its query, the status (`-`
    if none was sent), the size of the response's body in bytes, the duration in seconds, and
    `cut off` if the response is incomplete.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _log.isEnabledFor(logging.INFO):
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status = "-"
        size = 0
        ending = " cut off"

        async def send_on(message: Message) -> None:
            nonlocal status, size, ending
            # Noted before sending: the client may disconnect at the end, while `send` still runs.
            if message["type"] == "http.response.start":
                status = str(message["status"])
            else:
                size += len(message.get("body", b""))
                if not message.get("more_body"):
                    ending = ""
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        finally:
            client = scope.get("client")
            path = quote(scope["path"])  # it may contain line breaks
            _log.info(
                '%s "%s %s" %s %d bytes %.3f s%s',
                client[0] if client else "-",
                scope["method"],
                path[:200],
                status,
                size,
                time.monotonic() - began,
                ending,
            )
