"""The client of one site."""

from __future__ import annotations

import os
import warnings
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio.abc import ObjectSendStream, TaskStatus

from gprochat_anyio._request.address import SiteAddress
from gprochat_anyio._request.direct import sender_to
from gprochat_anyio._request.incoming import LiveReply
from gprochat_anyio._request.loop_affinity import LoopAffinity
from gprochat_anyio._request.observers import Watching
from gprochat_anyio._request.opening import ask_once, open_reply
from gprochat_anyio._request.reply import Reply
from gprochat_anyio._request.sender import Sender
from gprochat_anyio._request.stream import ReplyStream
from gprochat_anyio._wire.gprochat import (
    AUTH_PATH,
    GENERATE_PATH,
    decode_auth,
    encode_auth,
    encode_generate,
)
from gprochat_anyio._wire.messages import Message, Prompt, checked, history
from gprochat_anyio._wire.text_decoder import ReplyDecoder

from ._errors import InvalidPromptError
from ._redaction import hide_arguments
from ._settings import Retry, Timeouts, check

if TYPE_CHECKING:
    import ssl

    import httpx

    from gprochat_anyio.transport._pool import Pool

_AUTH_ANSWER_LIMIT = 4096

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
    :param failure_marker: whether a last HTTP chunk `Internal server error` means that the reply
        failed, as Node deployments have it
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
        self._secret_key = secret_key
        self._password = password
        self._address = SiteAddress(
            url, proxy=proxy, headers=headers, trust_env=trust_env and transport is None
        )
        if password and proxy is None and transport is None:
            self._address.warn_if_plain()
        self._timeouts = timeouts or Timeouts()
        self._retry = retry or Retry()
        self._decoder = partial(
            ReplyDecoder, failure_marker=failure_marker, max_size=max_reply_size
        )
        self._sender: Sender = sender_to(
            self._address,
            transport=transport,
            ssl_context=ssl_context,
            max_connections=max_connections,
        )
        self.watching = Watching(self._address.target.host, self._address.target.port)
        """For the library's own modules: who is told what happens to requests."""
        self._home = LoopAffinity("Client")
        self._closed = False

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
        address = getattr(self, "_address", None)  # none yet in a traceback of `__init__`
        return f"<Client of {address.url if address else 'nothing'}>"

    def __del__(self) -> None:
        if not getattr(self, "_closed", True) and self.pool and self.pool.statistics().idle:
            warnings.warn(
                "a Client was dropped with connections open: use `async with Client(...)`, or "
                "`await client.aclose()`",
                ResourceWarning,
                stacklevel=1,
                source=self,
            )

    @property
    def url(self) -> str:
        """The site's address; it holds no credentials."""
        return self._address.url

    @property
    def timeouts(self) -> Timeouts:
        """The limits of every request."""
        return self._timeouts

    @property
    def retry(self) -> Retry:
        """What is tried again before the first text."""
        return self._retry

    @property
    def pool(self) -> Pool | None:
        """For the library's own modules: the connections; None if a foreign transport has them."""
        return getattr(self._sender, "pool", None)

    async def __aenter__(self) -> Self:
        self._check_usable()
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

        :raises RuntimeError: on another event loop than the client's, or after a fork
        """
        if not self._closed:
            self._home.check()
        self._closed = True
        await self._sender.aclose()

    def stream(self, prompt: Prompt, *, timeouts: Timeouts | None = None) -> ReplyStream:
        """The reply as it arrives: `async with client.stream(prompt) as chunks`.

        :param timeouts: overrides the client's, field by field
        :raises GPROChatError: on entering the block, if there is no first text, an
            `InvalidPromptError` for a prompt that no site would answer; see `ReplyStream`
        """
        return ReplyStream(self._opener(prompt, timeouts))

    async def ask(self, prompt: Prompt, *, timeouts: Timeouts | None = None) -> Reply:
        """The whole reply. Cancelled, it closes the connection.

        :param timeouts: overrides the client's, field by field
        :raises GPROChatError: if there is no complete reply
        """
        opener = self._opener(prompt, timeouts)
        del prompt
        live = await opener()
        if not live.ended:
            await live.collect()
        return Reply(live.text, live.timing)

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

        :param send: closed in the end, whatever happens
        :param timeouts: overrides the client's, field by field. `idle` stands still while the
            channel is full.
        :raises GPROChatError: if there is no complete reply
        """
        async with send:
            opener = self._opener(prompt, timeouts)
            del prompt
            live = await opener()
            await live.forward(send, task_status.started)
            return Reply(live.text, live.timing)

    async def check_password(self) -> bool:
        """Whether the site accepts this client's password; also if it has none.

        :raises GPROChatError: if the site does not say
        """
        self._check_usable()
        body = encode_auth(self._password)
        return decode_auth(
            await ask_once(
                self._sender, AUTH_PATH, body, timeouts=self._timeouts, limit=_AUTH_ANSWER_LIMIT
            )
        )

    def _opener(
        self, prompt: Prompt, timeouts: Timeouts | None
    ) -> Callable[[], Awaitable[LiveReply]]:
        messages = checked(history, prompt)
        limits = self._timeouts.under(timeouts)

        async def opener() -> LiveReply:
            if isinstance(messages, InvalidPromptError):
                raise messages
            return await self.open(messages, limits)

        return opener

    async def open(
        self,
        messages: tuple[Message, ...],
        limits: Timeouts | None = None,
        *,
        path: str = GENERATE_PATH,
        retry: Retry | None = None,
    ) -> LiveReply:
        """For the library's own modules: the reply to a history, to be pulled and closed.

        :param limits: in the place of the client's `timeouts`
        :param retry: in the place of the client's
        """
        self._check_usable()
        watch = self.watching.request()
        try:
            live = await open_reply(
                self._sender,
                path,
                lambda: encode_generate(
                    messages, secret_key=self._secret_key, password=self._password
                ),
                timeouts=limits or self._timeouts,
                retry=retry or self._retry,
                decoder=self._decoder,
                watch=watch,
            )
        except BaseException as error:
            if watch is not None:
                watch.unanswered(error)
            raise
        if watch is not None:
            await live.watch_from_here(watch)
        return live

    def _check_usable(self) -> None:
        if self._closed:
            raise RuntimeError("this Client is closed; make a new one")
        self._home.check()
