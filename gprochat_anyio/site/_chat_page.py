"""The chat page at `/`: its files, and the cookie that replaces the signature."""

from __future__ import annotations

import hashlib
from functools import cache, cached_property, partial
from html import escape
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gprochat_anyio._wire.admission import is_same_secret

from ._cross_site_guard import is_own_origin

COOKIE: Final = "gprochat_page"

_INDEX: Final = "index.html"

# The system's table may contain another type for scripts, which browsers refuse.
_CONTENT_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    # Without a policy for trusted types, the browser refuses every assignment to `innerHTML`.
    "require-trusted-types-for 'script'; trusted-types 'none'"
)

_HEADERS: Final = {
    "cache-control": "no-cache",
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

_ITERATIONS: Final = 20_000
"""Iterations of PBKDF2, which take about 5 ms. They protect a weak secret key from being guessed
from the cookie."""


class _PageFile(NamedTuple):
    body: bytes
    content_type: str
    etag: str

    @classmethod
    def of(cls, body: bytes, content_type: str) -> _PageFile:
        return cls(body, content_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


class ChatPage:
    """The chat page of a site.

    The page does not know the site's secret key. Instead, `GET /` sets a cookie. A request with
    this cookie needs no signature if its `Origin`, which no web page can choose, is the site's own.
    The cookie is derived from the key, so it is valid in every process of a site, and after a
    restart.

    :param hosts: The site's host names, from `checked_hosts`.
    :param model_name: The model's name, for everyone who opens the page to see. Empty for none.
    """

    def __init__(self, secret_key: str, hosts: frozenset[str], *, model_name: str = "") -> None:
        self._secret_key = secret_key
        self._hosts = hosts
        self._model_name = model_name

    def routes(self) -> list[Route]:
        """Return the routes of the page and its files."""
        # Reads the files, so that no request waits for the disk.
        others = dict(_page_files())
        index = self._named(others.pop(_INDEX))
        return [
            Route("/", partial(self._get, index)),
            *(Route(f"/page/{name}", partial(self._get, file)) for name, file in others.items()),
        ]

    def _named(self, index: _PageFile) -> _PageFile:
        """Return the page with the model's name."""
        name = escape(self._model_name).encode(errors="replace")
        body = index.body.replace(b'name="model" content=""', b'name="model" content="%b"' % name)
        return _PageFile.of(body, index.content_type)

    def has_sent(self, request: Request) -> bool:
        """Return True if this page, open in a browser, has sent a request."""
        headers = request.headers
        return (
            is_own_origin(headers, self._hosts)
            and headers.get("sec-fetch-site", "same-origin") == "same-origin"
            and is_same_secret(request.cookies.get(COOKIE, ""), self._token)
        )

    async def _get(self, file: _PageFile, request: Request) -> Response:
        if request.headers.get("if-none-match") == file.etag:
            response = Response(status_code=304, headers=_HEADERS)
        else:
            response = Response(file.body, headers=_HEADERS, media_type=file.content_type)
        response.headers["etag"] = file.etag
        if file.content_type.startswith("text/html"):
            response.set_cookie(
                COOKIE,
                self._token,
                path=request.scope.get("root_path") or "/",
                secure=request.url.scheme == "https",
                httponly=True,
                samesite="strict",
            )
        return response

    @cached_property
    def _token(self) -> str:
        key = self._secret_key.encode()
        return hashlib.pbkdf2_hmac("sha256", key, COOKIE.encode(), _ITERATIONS).hex()


@cache
def _page_files() -> dict[str, _PageFile]:
    entries = files("gprochat_anyio.site").joinpath("page").iterdir()
    return {
        entry.name: _PageFile.of(entry.read_bytes(), _CONTENT_TYPES[suffix])
        for entry in entries
        if (suffix := PurePosixPath(entry.name).suffix) in _CONTENT_TYPES
    }
