"""Protection against requests that browsers send on behalf of other sites."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv6Address
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gprochat_anyio._wire.admission import WireResponse, error_response
from gprochat_anyio.transport._wiring import is_loopback

from ._intake import to_response

_AUTHORITY: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/?#@%\[\]]+)(:\d*)?")
_HOW: Final = "hosts= of create_app or serve, --host-name of gprochat serve"

_OTHER_PAGE: Final = error_response(403, "Pages of other sites may not use this site.")
_OTHER_ORIGIN: Final = error_response(
    403,
    "Pages of other sites may not use this site. If this is the site's own page behind a proxy, "
    f"make the proxy forward the Host header, or list the page's host name: {_HOW}.",
)
_OTHER_HOST: Final = error_response(
    403,
    "Without a password, this site accepts only requests to localhost, and this request has "
    f"another Host. List the site's host names: {_HOW}. Or set a password.",
)


class CrossSiteGuard:
    """ASGI middleware that rejects requests which a browser sends on behalf of another site.

    `POST /api/generate` accepts plain text. Browsers send plain text to any site without a
    preflight request, even to one on the visitor's machine. The guard checks three headers. Clients
    other than browsers may omit the last two.

    - `Host`, if the site has no password: a page whose name was rebound to a loopback address still
      sends its own name.
    - `Origin`, if the site has no password: browsers send it with each POST.
    - `Sec-Fetch-Site`: browsers send it to loopback addresses, and over TLS.

    :param hosts: The site's host names, from `checked_hosts`.
    :param protected: True if the site has a password.
    :param always: A path that accepts any `Host`.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: frozenset[str], protected: bool, always: str
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._protected = protected
        self._always = always

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and (refusal := self._refusal(scope)) is not None:
            app = to_response(refusal)
        await app(scope, receive, send)

    def _refusal(self, scope: Scope) -> WireResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if not (self._protected or scope["path"] == self._always or self._is_own(host)):
            return _OTHER_HOST
        if scope["method"] in ("GET", "HEAD"):
            return None
        if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return _OTHER_PAGE
        if "origin" not in headers or self._protected:
            return None
        return None if is_own_origin(headers, self._hosts) else _OTHER_ORIGIN

    def _is_own(self, authority: str) -> bool:
        """Return True if the value of a `Host` header is the site's own."""
        parts = _AUTHORITY.fullmatch(authority)
        if parts is None:
            return False
        return is_loopback(parts[1].strip("[]")) or not self._hosts.isdisjoint(
            (authority, parts[1])
        )


def is_own_origin(headers: Headers, hosts: frozenset[str]) -> bool:
    """Return True if a request's `Origin` is the site's own.

    :param hosts: The site's host names, from `checked_hosts`, in case a proxy does not forward
        `Host`.
    """
    own = {headers.get("host", "").lower(), *hosts} - {""}
    authorities = [origin.lower().partition("://")[2] for origin in headers.getlist("origin")]
    return bool(authorities) and own.issuperset(authorities)


def checked_hosts(hosts: Iterable[str]) -> frozenset[str]:
    """Return a site's names and addresses as they appear in `Host`, with or without a port.

    :raises ValueError: If one is invalid. The message names it.
    :raises TypeError: If `hosts` is a single string.
    """
    if isinstance(hosts, str):
        raise TypeError("hosts must be a tuple or list of host names, not a single string")
    return frozenset(map(_checked_host, hosts))


def _checked_host(host: str) -> str:
    try:
        return f"[{IPv6Address(host)}]"
    except ValueError:
        pass
    if _AUTHORITY.fullmatch(host.lower()) is None:
        raise ValueError(
            f"hosts must be names or addresses, such as chat.example.org, not {host!r}"
        )
    return host.lower()
