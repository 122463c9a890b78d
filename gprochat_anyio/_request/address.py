"""An API's address, and the header fields that its requests share."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from urllib.parse import quote

from gprochat_anyio._errors import InsecureSiteWarning
from gprochat_anyio._redaction import Hidden
from gprochat_anyio._version import __version__
from gprochat_anyio.transport._target import Proxy, Target, ascii_host, environment_proxy, split_url

USER_AGENT = f"gprochat-anyio/{__version__}"

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_IN_A_PATH = "/?%:@!$&'()*+,;=~"  # not quoted (RFC 3986), including the % of an escape
_LIBRARY = str(Path(__file__).parent.parent)
_FRAMING = frozenset({"connection", "content-length", "host", "transfer-encoding"})


class SiteAddress:
    """An API's address, and the header fields of requests to it.

    :param url: An `http://` or `https://` URL, with or without a path.
    :param argument: The name of the caller's argument for the URL, for errors.
    :param proxy: The URL of a proxy.
    :param fields: The API's own header fields.
    :param from_page: Send the `Origin` and `Referer` of the site's own page.
    :param headers: Header fields to add. They replace the library's fields of the same name.
    :param trust_env: Use the environment's proxy if `proxy` is `None`.
    :raises ValueError: If an argument is invalid. The message names it.
    """

    def __init__(
        self,
        url: str,
        *,
        argument: str = "url",
        proxy: str | None = None,
        fields: Mapping[str, str] | None = None,
        from_page: bool = False,
        headers: Mapping[str, str] | None = None,
        trust_env: bool = True,
    ) -> None:
        parts, port = split_url(argument, url, ("http", "https"))
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                f"{argument} must not contain credentials, which end up in logs: give a password "
                "as password=..., a key as api_key=..., and a proxy's in proxy=..."
            )
        if parts.query or parts.fragment:
            raise ValueError(f"{argument} must not have a query or a fragment: leave it out")
        host = ascii_host(argument, parts.hostname or "")
        via: Proxy | None = None
        if proxy is not None:
            via = Proxy.from_url(proxy)
        elif trust_env:
            via = environment_proxy(parts.scheme, host, port)
        self.target: Target = Target(parts.scheme, host, port, via)
        self.path: str = quote(parts.path.rstrip("/"), safe=_IN_A_PATH)
        self.origin: str = f"{parts.scheme}://{self.target.authority}"
        self.url: str = self.origin + self.path
        self.headers: dict[str, str] = self._headers(
            dict(fields or {}), headers or {}, from_page=from_page
        )

    def __repr__(self) -> str:
        return f"SiteAddress({self.url!r})"

    def by(self, proxy: Proxy | None) -> SiteAddress:
        """Return the same address with another proxy, or without one."""
        other = copy(self)
        other.target = self.target._replace(proxy=proxy)
        return other

    def warn_if_plain(self, secret: str) -> None:
        """Warn if a secret is sent to another machine unencrypted.

        The warning points to the first caller outside of the library.

        :param secret: The secret's name.
        """
        if self.target.scheme == "https" or _is_loopback(self.target.host):
            return
        warnings.warn(
            f"the {secret} is sent to {self.origin} unencrypted: use https://, or a proxy=... that "
            "encrypts the connection",
            InsecureSiteWarning,
            stacklevel=_levels_to_the_caller(),
        )

    def head(self, path: str) -> Hidden:
        """Return the head of a POST below the API's path, up to the value of `Content-Length`."""
        return self._head("POST", path, self.headers, "Content-Length: ")

    def get(self, path: str) -> Hidden:
        """Return a complete GET request below the API's path."""
        return self._head("GET", path, headers_of_get(self.headers), "\r\n")

    def _head(self, method: str, path: str, headers: Mapping[str, str], end: str) -> Hidden:
        forwarded_by = self.target.forwarded_by
        place = f"{self.origin if forwarded_by else ''}{self.path}{quote(path, safe=_IN_A_PATH)}"
        fields = [("Host", self.target.authority), *headers.items()]
        if forwarded_by and forwarded_by.authorization:
            fields.append(("Proxy-Authorization", forwarded_by.authorization.decode()))
        lines = [f"{method} {place} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
        return Hidden("\r\n".join([*lines, end]).encode("latin-1"))

    def _headers(
        self, api: dict[str, str], given: Mapping[str, str], *, from_page: bool
    ) -> dict[str, str]:
        fields = {"Accept-Encoding": "identity", "User-Agent": USER_AGENT, **api}
        if from_page:
            fields |= {"Origin": self.origin, "Referer": f"{self.url}/"}
        own = {name.lower(): name for name in fields}
        for name, value in given.items():
            _check_header(name, value)
            fields[own.get(name.lower(), name)] = value
        return fields


def headers_of_get(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the header fields of a GET, which has no body and accepts JSON.

    :param headers: The header fields of requests for replies.
    """
    kept = {n: v for n, v in headers.items() if n.lower() not in ("accept", "content-type")}
    return {**kept, "Accept": "application/json"}


def _is_loopback(host: str) -> bool:
    from ipaddress import ip_address  # noqa: PLC0415 - rarely needed

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _levels_to_the_caller() -> int:
    """Return the `stacklevel` of a warning that points to the library's caller."""
    level, frame = 0, sys._getframe()  # noqa: SLF001 - as `warnings` does
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_LIBRARY):
        level, frame = level + 1, frame.f_back
    return level


def _check_header(name: str, value: str) -> None:
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise ValueError("headers: a name must be an HTTP token (letters, digits, -)")
    if name.lower() in _FRAMING:
        raise ValueError(f"headers: {name} is set by the transport; leave it out")
    if not isinstance(value, str) or not _is_field_value(value):
        raise ValueError(
            f"headers: the value of {name} must be a str of Latin-1 characters without CR, LF, NUL "
            "or other control characters"
        )


def _is_field_value(value: str) -> bool:
    return all(c == "\t" or " " <= c <= "~" or "\xa0" <= c <= "\xff" for c in value)
