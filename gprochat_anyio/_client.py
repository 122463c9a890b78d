"""The client of one site."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio.abc import ObjectSendStream, TaskStatus

from gprochat_anyio._request.address import SiteAddress
from gprochat_anyio._request.consuming import collect, forward, offer_to
from gprochat_anyio._request.endpoint import Endpoint, PreparedRequest, sender_to
from gprochat_anyio._request.reply import Reply
from gprochat_anyio._request.sinks import Collector, Forwarder
from gprochat_anyio._request.stream import ReplyStream, open_channel
from gprochat_anyio._wire.messages import Prompt
from gprochat_anyio._wire.reply_decoder import TextDecoder

from ._errors import InvalidPromptError
from ._redaction import hide_arguments
from ._settings import Retry, Timeouts, check

if TYPE_CHECKING:
    import ssl

    import httpx

MAX_REPLY_SIZE = 64 * 1024 * 1024
"""Bytes: more than any model says, and little enough to hold once."""


class Client:
    """A client of one GPROChat site, for one event loop (asyncio or Trio) and many tasks.

    `async with Client(url) as client` closes the kept connections at its end. Requests may run at
    the same time in any number of tasks, and none spawns a task that outlives its call or block.

    :param url: the site's address; a path is kept, so a site may live below one
    :param secret_key: the site's secret key, which signs requests
    :param password: the site's password, if it has one
    :param timeouts: limits in seconds for every request; a call may override single ones
    :param retry: what to try again before the first text, and how often
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
        for name, bound in (("connections", max_connections), ("reply_size", max_reply_size)):
            check(f"max_{name}", bound, int, type(None))
            if bound is not None and bound < 1:
                raise ValueError(f"max_{name} must be at least 1, or None for no bound")
        if transport is not None and (proxy is not None or ssl_context is not None):
            raise ValueError("proxy and ssl_context are the transport's business: set them there")
        address = SiteAddress(
            url, proxy=proxy, headers=headers, trust_env=trust_env and transport is None
        )
        if password and proxy is None and transport is None:
            address.warn_if_plain()
        self._endpoint = Endpoint(
            address,
            sender_to(
                address,
                transport=transport,
                ssl_context=ssl_context,
                max_connections=max_connections,
            ),
            secret_key=secret_key,
            password=password,
            timeouts=timeouts or Timeouts(),
            retry=retry or Retry(),
            decoder=partial(TextDecoder, failure_marker=failure_marker, max_size=max_reply_size),
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
        endpoint = getattr(self, "_endpoint", None)  # none yet in a traceback of `__init__`
        return f"<Client of {endpoint.address.url if endpoint else 'nothing'}>"

    def __del__(self) -> None:
        endpoint = getattr(self, "_endpoint", None)
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
        return self._endpoint.address.url

    @property
    def timeouts(self) -> Timeouts:
        """The limits of every request."""
        return self._endpoint.timeouts

    @property
    def retry(self) -> Retry:
        """The failures that are tried again before the first text."""
        return self._endpoint.retry

    async def __aenter__(self) -> Self:
        self._endpoint.check_usable()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the kept connections. Those in use are closed as their replies end.

        :raises RuntimeError: On another event loop than the client's, or after a fork.
        """
        await self._endpoint.aclose()

    def stream(self, prompt: Prompt, *, timeouts: Timeouts | None = None) -> ReplyStream:
        """Return the reply as it arrives: `async with client.stream(prompt) as chunks`.

        :param timeouts: overrides the client's, field by field
        :raises GPROChatError: On entering the block, if there is no first text; an
            `InvalidPromptError` for a prompt that no site would answer. See `ReplyStream`.
        """
        return ReplyStream(
            partial(open_channel, self._endpoint, PreparedRequest.of(prompt, timeouts))
        )

    async def ask(self, prompt: Prompt, *, timeouts: Timeouts | None = None) -> Reply:
        """Return the whole reply. Cancelled, it closes the connection.

        :param timeouts: overrides the client's, field by field
        :raises GPROChatError: If there is no complete reply.
        """
        request = PreparedRequest.of(prompt, timeouts)
        del prompt
        if isinstance(request, InvalidPromptError):
            raise request
        sink = Collector()
        reply = await self._endpoint.open(request, sink, whole=True)
        await collect(reply, sink)
        return Reply(sink.text, reply.timing)

    async def stream_to(
        self,
        prompt: Prompt,
        send: ObjectSendStream[str],
        *,
        timeouts: Timeouts | None = None,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> Reply:
        """Send the reply's text into a channel of the caller's, as it arrives, and return it.

        For a task group: `tg.start_soon(client.stream_to, prompt, send)`, with a clone of `send`
        for each of several; `await tg.start(...)` returns once the first text has arrived. If the
        receiving end is closed, the reply is given up, and what came of it returned.

        While there is room in a memory object stream, text goes straight into it as it arrives.

        :param send: closed in the end, whatever happens
        :param timeouts: overrides the client's, field by field. `idle` stands still while 64 KiB of
            text wait for room in the channel.
        :raises GPROChatError: If there is no complete reply.
        """
        async with send:
            request = PreparedRequest.of(prompt, timeouts)
            del prompt
            if isinstance(request, InvalidPromptError):
                raise request
            sink = Forwarder(offer_to(send))
            reply = await self._endpoint.open(request, sink)
            await forward(reply, sink, send.send, started=task_status.started)
            return Reply(sink.text, reply.timing)

    async def check_password(self) -> bool:
        """Return True if the site accepts this client's password, or has none.

        :raises GPROChatError: If the site does not say.
        """
        return await self._endpoint.check_password()


def endpoint_of(client: Client) -> Endpoint:
    """Return what a client sends its requests by: for fan-outs, races and conversations."""
    return client._endpoint  # noqa: SLF001 - this module's own
