"""The client of one chat API: a GPROChat site, OpenAI's, Gemini's, or a model in this process."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

from gprochat_anyio._request.building import MAX_REPLY_SIZE, endpoint_at, endpoint_of_model
from gprochat_anyio._request.chat_client import ChatClient
from gprochat_anyio._request.endpoint import Endpoint
from gprochat_anyio._request.limiter import Limiter
from gprochat_anyio._wire.gemini import GEMINI_MODEL, GEMINI_URL, GeminiWire
from gprochat_anyio._wire.gprochat_wire import GPROChatWire
from gprochat_anyio._wire.model_api import Model
from gprochat_anyio._wire.openai import OpenAIWire

from ._redaction import hide_arguments
from ._settings import Retry, Timeouts, check

if TYPE_CHECKING:
    import ssl

    import httpx


class ClientSettings(TypedDict, total=False):
    """The settings that all kinds of clients with an address share; see `Client`."""

    timeouts: Timeouts | None
    retry: Retry | None
    limiter: Limiter | None
    proxy: str | None
    ssl_context: ssl.SSLContext | None
    headers: Mapping[str, str] | None
    trust_env: bool
    max_connections: int | None
    max_reply_size: int | None
    transport: httpx.AsyncBaseTransport | None


class Client(ChatClient[Endpoint]):
    """A client of one chat API, for one event loop (asyncio or Trio) and many tasks.

    `Client(url)` is one of a GPROChat site, `Client.openai` of a server with OpenAI's API,
    `Client.gemini` of Gemini's, and `Client.of` of a model in this process. All are used alike.

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
        self._opener = endpoint_at(
            url,
            GPROChatWire(secret_key=secret_key, password=password, failure_marker=failure_marker),
            from_page=True,
            secret="password" if password else None,
            timeouts=timeouts,
            retry=retry,
            limiter=limiter,
            proxy=proxy,
            ssl_context=ssl_context,
            headers=headers,
            trust_env=trust_env,
            max_connections=max_connections,
            max_reply_size=max_reply_size,
            transport=transport,
        )

    @classmethod
    @hide_arguments
    def openai(
        cls,
        base_url: str,
        *,
        model: str,
        api_key: str | None = None,
        system: str | None = None,
        fields: Mapping[str, Any] | None = None,
        **settings: Unpack[ClientSettings],
    ) -> Self:
        """Return a client of a server with OpenAI's API (chat completions): OpenAI, Ollama,
        llama.cpp, vLLM and many others.

        :param base_url: The API's address, often with `/v1`: `"http://127.0.0.1:11434/v1"` is
            Ollama's.
        :param model: The model's name.
        :param api_key: A key, if the server wants one. It is read from nowhere else, and never
            shows in a repr, a log or an error.
        :param system: A system text for every request, before the prompt's own.
        :param fields: More fields of the request's body, such as `{"temperature": 0}`. None as a
            value leaves a field out that the library would send: `{"stream_options": None}` for a
            server that refuses to count tokens.
        :param settings: As for `Client`.
        :raises ValueError: For an argument that is invalid; the message names it.
        """
        wire = OpenAIWire(model, api_key=api_key, system=system, fields=fields)
        return cls._over(wire, base_url, bool(api_key), settings)

    @classmethod
    @hide_arguments
    def gemini(
        cls,
        model: str = GEMINI_MODEL,
        *,
        api_key: str | None = None,
        base_url: str = GEMINI_URL,
        system: str | None = None,
        fields: Mapping[str, Any] | None = None,
        **settings: Unpack[ClientSettings],
    ) -> Self:
        """Return a client of Gemini's API, or of a server that speaks it.

        :param model: The model's name.
        :param api_key: A key of aistudio.google.com. None reads GEMINI_API_KEY. It never shows in
            a repr, a log or an error.
        :param base_url: The API's address, its version included.
        :param system: A system text for every request, before the prompt's own.
        :param fields: More fields of the request's body, such as
            `{"generationConfig": {"temperature": 0}}`.
        :param settings: As for `Client`.
        :raises ValueError: For an argument that is invalid, or if there is no key; the message
            names it.
        """
        if api_key is None:
            api_key = os.environ.get("GEMINI_API_KEY")
        if not api_key:
            raise ValueError("no api_key: set GEMINI_API_KEY to a key of aistudio.google.com")
        wire = GeminiWire(model, api_key=api_key, system=system, fields=fields)
        return cls._over(wire, base_url, True, settings)

    @classmethod
    def of(
        cls,
        model: Model,
        *,
        name: str | None = None,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        limiter: Limiter | None = None,
        max_reply_size: int | None = MAX_REPLY_SIZE,
    ) -> Self:
        """Return a client of a model in this process, which runs in the caller's event loop.

        ::

            async def shout(turns):
                yield turns[-1].text.upper()

            async with Client.of(shout) as client:
                print((await client.ask("hello")).text)

        Each request iterates over the model in a task of its own, in the caller's context. When it
        is cancelled, or its block is left, the iteration is cancelled and an async generator
        closed, for at most a second, before that returns. While 64 KiB of text wait for the
        consumer, the model is not asked for more.

        A `gprochat_anyio.site.ModelError` of the model's becomes a `SiteError`, or a
        `RateLimitError` for status 429. Any other exception becomes a `SiteError` that does not
        quote it, and the log says where it was raised.

        :param model: A callable that takes a history, a tuple of `gprochat_anyio.site.Turn`, and
            returns an async iterable of text. It may end with a `gprochat_anyio.site.Finish`.
        :param name: The model's name. None takes its `name` or `__name__`.
        :raises ValueError: For an argument that is invalid; the message names it.
        """
        if not callable(model):
            raise ValueError("model must be a callable from a history to an async iterable of text")
        return cls._of(
            endpoint_of_model(
                model,
                name=name,
                timeouts=timeouts,
                retry=retry,
                limiter=limiter,
                max_reply_size=max_reply_size,
            )
        )

    @classmethod
    def _over(
        cls, wire: OpenAIWire | GeminiWire, url: str, has_key: bool, settings: ClientSettings
    ) -> Self:
        secret = "API key" if has_key else None
        return cls._of(
            endpoint_at(
                url, wire, url_argument="base_url", model=wire.model, secret=secret, **settings
            )
        )

    @classmethod
    def _of(cls, endpoint: Endpoint) -> Self:
        client = cls.__new__(cls)
        client._opener = endpoint  # noqa: SLF001 - this class's own
        return client

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
        return f"<Client of {endpoint or 'nothing'}>"

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
        """The API's address, without credentials; `model:` and its name for a model in this
        process."""
        return self._opener.url

    @property
    def model(self) -> str | None:
        """The model's name; None for a GPROChat site, which chooses it."""
        return self._opener.model

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
        :raises TypeError: For another API than that of a GPROChat site.
        """
        return await self._opener.check_password()
