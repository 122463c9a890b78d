"""Origins, proxies and URLs."""

from __future__ import annotations

import os
from binascii import b2a_base64
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy: `http://`, `https://` or `socks5://`, which resolves names itself.

    :raises ValueError: If the scheme is another, or the host is missing. The message never shows
        the URL's credentials.
    """

    scheme: str
    host: str
    port: int
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @classmethod
    def from_url(cls, url: str) -> Proxy:
        parts, port = split_url("proxy", url, tuple(_PORTS))
        return cls(
            "socks5" if parts.scheme == "socks5h" else parts.scheme,
            parts.hostname or "",
            port,
            None if parts.username is None else unquote(parts.username),
            None if parts.password is None else unquote(parts.password),
        )

    @property
    def authorization(self) -> bytes | None:
        """The value of `Proxy-Authorization`, or `None` if the URL has no credentials."""
        if self.username is None:
            return None
        return b"Basic " + b2a_base64(
            f"{self.username}:{self.password or ''}".encode(), newline=False
        )


class Target(NamedTuple):
    """An origin, and the proxy on the way to it, if any. The key of connections in a pool."""

    scheme: str
    host: str
    port: int
    proxy: Proxy | None = None

    @property
    def authority(self) -> str:
        """The value of `Host`, without the scheme's default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def forwarded_by(self) -> Proxy | None:
        """The proxy that forwards the request itself, instead of opening a tunnel."""
        forwarded = self.scheme == "http" and self.proxy is not None
        return self.proxy if forwarded and self.proxy.scheme != "socks5" else None  # type: ignore[union-attr]


def split_url(argument: str, url: str, schemes: tuple[str, ...]) -> tuple[SplitResult, int]:
    """Split a URL. Return its parts and its port.

    :raises ValueError: If it is not an absolute URL with one of these schemes. The message names
        the argument but does not show the URL, which may contain credentials.
    """
    listed = " or ".join(f"{scheme}://" for scheme in schemes)
    wanted = f"{argument} must be an absolute URL that starts with {listed}"
    if not isinstance(url, str):
        raise ValueError(f"{wanted}, not {type(url).__name__}")
    if not url.isprintable() or " " in url:
        raise ValueError(f"{wanted}; this one contains a space or a control character")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        reason = str(error)
    else:
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(f"{wanted}, such as {schemes[0]}://127.0.0.1:8000")
        return parts, _PORTS[parts.scheme] if port is None else port
    raise ValueError(f"{wanted}; this one is malformed: {reason}")


def ascii_host(argument: str, host: str) -> str:
    """Encode a host name in ASCII, for DNS and `Host`.

    :raises ValueError: If it is not a valid host name.
    """
    if host.isascii():
        return host
    import idna  # noqa: PLC0415 - rarely needed

    try:
        return idna.encode(host, uts46=True).decode()
    except idna.IDNAError as error:
        reason = str(error)
    raise ValueError(f"{argument} has an invalid host name: {reason}")


def environment_proxy(scheme: str, host: str, port: int) -> Proxy | None:
    """Return the environment's proxy for an origin, or `None`.

    The variables are HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in upper or lower case. On
    macOS and Windows, the platform's settings count as well.

    :raises ValueError: If the setting is not a proxy's URL.
    """
    if os.name == "posix" and not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - costs 20 ms

    proxies = getproxies()
    url = proxies.get(scheme) or proxies.get("all")
    if not url or proxy_bypass(host) or proxy_bypass(f"{host}:{port}"):
        return None
    return Proxy.from_url(url if "://" in url else f"http://{url}")
