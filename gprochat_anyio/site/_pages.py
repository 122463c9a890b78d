"""Keeps pages of other sites out."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gprochat_anyio._wire.admission import error_response

from ._intake import to_response

_REFUSED: Final = error_response(403, "Pages of other sites may not use this one.")


class OwnPages:
    """ASGI middleware: no page of another site uses the model, by the browser of whoever visits it.

    `POST /api/generate` takes plain text, which browsers send anywhere without asking first, also
    to a site on the visitor's own machine. But they say who asks (`Sec-Fetch-Site`, W3C Fetch
    Metadata), if the site is on loopback or speaks TLS. What is no browser says nothing of it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            asks = Headers(scope=scope).get("sec-fetch-site")
            if asks in ("cross-site", "same-site"):
                app = to_response(_REFUSED)
        await app(scope, receive, send)
