"""The client of one site."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from gprochat_anyio._request.address import SiteAddress
from gprochat_anyio._request.chat_client import ChatClient
from gprochat_anyio._request.endpoint import Endpoint, sender_to
from gprochat_anyio._request.limiter import Limiter
from gprochat_anyio._wire.gprochat_wire import GPROChatWire

from ._redaction import hide_arguments
from ._settings import Retry, Timeouts, check

if TYPE_CHECKING:
    import ssl

    import httpx

MAX_REPLY_SIZE = 64 * 1024 * 1024
"""Bytes: more than any model says, and little enough to hold once."""


class Client(ChatClient[Endpoint]):
    """A client of one GPROChat site, for one event loop (asyncio or Trio) and many tasks.

    `async with Client(url) as client` closes the kept connections at its end. Requests may run at
    the same time in any number of tasks, and none spawns a task that outlives its call or block.

    :param url: the site's address; a path is kept, so a site may live below one
    :param secret_key: the site's secret key, which signs requests
    :param password: the site's password, if it has one
    :param timeouts: limits in seconds for every request; a call may override single ones
    :param retry: what to try again before the first text, and how often
    :param limiter: limits the requests of this client together with those of others that it is
        given to. While a request waits for its start, only `total` runs.
    :param proxy: the URL of a proxy (`http://`, `https://`, `socks5://` with the extra `socks`),
        credentials included
    :param ssl_context: replaces the verification by certifi's authorities, of the site and of an
        `https://` proxy: for an authority of one's own
    :param headers: header fields to send besides, or instead of, the library's
    :param trust_env: whether HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY are honoured
    :param max_connections: how many connections, and so open replies, at the most; a request
        beyond waits, first come, first served, on no clock but `total`. None is no bound.
    :param max_reply_size: how many bytes of body a reply may have; at the next one it is closed,
        and a `ReplyInterruptedError` has the text of those. None is no bound but memory.
    :param transport: an httpx (or httpx2) transport to send by, instead of the library's own; it
        is closed with the client. Proxy, TLS and bounds are then its business.
    :param failure_marker: True if a reply that ends with exactly the text `Internal server error`
        has failed, as Node deployments have it; False for a model that says so itself
    :raises ValueError: that names the argument, for a setting that can not be

    A password for a plain `http://` site that is not on loopback gives an `InsecureSiteWarning`,
    unless `proxy` or `transport` say how to get there.
    """

    @hide_arguments
    def __init__(
        self,
        url: str,
        *,
        secret_key: str = "",
        password: str | None = None,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        limiter: Limiter | None = None,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
        trust_env: bool = True,
        max_connections: int | None = 1000,
        max_reply_size: int | None = MAX_REPLY_SIZE,
        transport: httpx.AsyncBaseTransport | None = None,
        failure_marker: bool = True,
    ) -> None:
        check("secret_key", secret_key, str)
        check("password", password, str, type(None))
        check("timeouts", timeouts, Timeouts, type(None))
        check("retry", retry, Retry, type(None))
        check("limiter", limiter, Limiter, type(None))
        for name, bound in (("connections", max_connections), ("reply_size", max_reply_size)):
            check(f"max_{name}", bound, int, type(None))
            if bound is not None and bound < 1:
                raise ValueError(f"max_{name} must be at least 1, or None for no bound")
        if transport is not None and (proxy is not None or ssl_context is not None):
            raise ValueError("proxy and ssl_context are the transport's business: set them there")
        wire = GPROChatWire(secret_key=secret_key, password=password, failure_marker=failure_marker)
        address = SiteAddress(
            url,
            proxy=proxy,
            fields=wire.headers,
            from_page=True,
            headers=headers,
            trust_env=trust_env and transport is None,
        )
        if password and proxy is None and transport is None:
            address.warn_if_plain()
        self._opener = Endpoint(
            address,
            sender_to(
                address,
                transport=transport,
                ssl_context=ssl_context,
                max_connections=max_connections,
            ),
            wire,
            timeouts=timeouts or Timeouts(),
            retry=retry or Retry(),
            limiter=limiter,
            max_reply_size=max_reply_size,
        )

    @classmethod
    @hide_arguments
    def from_env(cls, **overrides: Any) -> Self:
        """A client set up by GPROCHAT_URL, GPROCHAT_SECRET_KEY and GPROCHAT_PASSWORD.

        :param overrides: arguments of `Client`, which go before the environment
        :raises ValueError: if there is no URL, or a setting can not be
        """
        settings: dict[str, Any] = {
            name: os.environ[variable]
            for name, variable in (
                ("url", "GPROCHAT_URL"),
                ("secret_key", "GPROCHAT_SECRET_KEY"),
                ("password", "GPROCHAT_PASSWORD"),
            )
            if variable in os.environ
        }
        settings |= overrides
        if not settings.get("url"):
            raise ValueError("no url: set GPROCHAT_URL to the address of a site, or give url=...")
        return cls(**settings)

    def __repr__(self) -> str:
        endpoint = getattr(self, "_opener", None)  # none yet in a traceback of `__init__`
        return f"<Client of {endpoint.address.url if endpoint else 'nothing'}>"

    def __del__(self) -> None:
        endpoint = getattr(self, "_opener", None)
        if endpoint is None or endpoint.closed or endpoint.pool is None:
            return
        if endpoint.pool.statistics().idle:
            warnings.warn(
                "a Client was dropped with connections open: use `async with Client(...)`, or "
                "`await client.aclose()`",
                ResourceWarning,
                stacklevel=1,
                source=self,
            )

    @property
    def url(self) -> str:
        """The site's address, without credentials."""
        return self._opener.address.url

    @property
    def timeouts(self) -> Timeouts:
        """The limits of every request."""
        return self._opener.timeouts

    @property
    def retry(self) -> Retry:
        """The failures that are tried again before the first text."""
        return self._opener.retry

    async def check_password(self) -> bool:
        """Return True if the site accepts this client's password, or has none.

        :raises GPROChatError: If the site does not say.
        """
        return await self._opener.check_password()
