"""Clients of chat APIs: GPROChat sites, OpenAI's API, Gemini, and models in this process."""

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
from ._settings import AsyncTransport, Retry, Timeouts, check

if TYPE_CHECKING:
    import ssl


class ClientSettings(TypedDict, total=False):
    """Settings that all clients with an address share; see `Client`."""

    timeouts: Timeouts | None
    retry: Retry | None
    limiter: Limiter | None
    proxy: str | None
    ssl_context: ssl.SSLContext | None
    headers: Mapping[str, str] | None
    trust_env: bool
    max_connections: int | None
    max_reply_size: int | None
    transport: AsyncTransport | None


class Client(ChatClient[Endpoint]):
    """A client of one chat API, for any number of tasks of one event loop (asyncio or Trio).

    `Client(url)` is a client of a GPROChat site. `Client.openai`, `Client.gemini` and `Client.of`
    make clients of a server with OpenAI's API, of Gemini, and of a model in this process. All have
    the same methods.

    `async with Client(url) as client` closes the idle connections on exit. No request leaves a task
    running after its call or block.

    :param url: The site's address. It may have a path.
    :param secret_key: The site's secret key, which signs requests.
    :param password: The site's password, if it has one.
    :param timeouts: Time limits of each request. A call may override single ones.
    :param retry: The policy for retries before the first text.
    :param limiter: A limiter, which may be shared with other clients. While a request waits for it,
        only `total` applies.
    :param proxy: The URL of a proxy (`http://`, `https://`, or `socks5://` with the extra `socks`),
        including its credentials.
    :param ssl_context: Verifies the site and an `https://` proxy, instead of certifi's authorities.
    :param headers: Header fields to send. They replace the library's fields of the same name.
    :param trust_env: Honour HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.
    :param max_connections: Maximum number of connections, and so of open replies. Further requests
        wait in order; only `total` limits the wait. `None` for no limit.
    :param max_reply_size: Maximum size of a reply's body in bytes. A longer reply is cut off with a
        `ReplyInterruptedError`, whose `partial_text` holds what came before. `None` for no limit.
    :param transport: An httpx or httpx2 transport that sends the requests. It replaces the
        library's own, is closed with the client, and handles proxies, TLS and connection limits
        itself.
    :param failure_marker: Treat a reply that ends with exactly the text `Internal server error` as
        failed, as Node deployments end one. Set it to False if the model may say this itself.
    :raises ValueError: If an argument is invalid. The message names it.

    A password for a plain `http://` site that is not on loopback emits an `InsecureSiteWarning`,
    unless `proxy` or `transport` is given.
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
        transport: AsyncTransport | None = None,
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

        :param base_url: The API's address, usually with `/v1`. Ollama's is
            `"http://127.0.0.1:11434/v1"`.
        :param model: The model's name.
        :param api_key: The API key, if the server requires one. The environment is not read. The
            key never appears in a repr, a log or an error.
        :param system: A system message for every request, before the prompt's own.
        :param fields: Additional fields of the request's body, such as `{"temperature": 0}`. A
            value of `None` omits a field that the library would send: `{"stream_options": None}`
            for a server that rejects this field.
        :param settings: Other arguments of `Client`.
        :raises ValueError: If an argument is invalid. The message names it.
        """
        _check_unicode(model=model, system=system)
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
        """Return a client of the Gemini API, or of a compatible server.

        :param model: The model's name.
        :param api_key: An API key from aistudio.google.com. `None` reads GEMINI_API_KEY. The key
            never appears in a repr, a log or an error.
        :param base_url: The API's address, including its version.
        :param system: A system message for every request, before the prompt's own.
        :param fields: Additional fields of the request's body, such as
            `{"generationConfig": {"temperature": 0}}`.
        :param settings: Other arguments of `Client`.
        :raises ValueError: If an argument is invalid or there is no key. The message names it.
        """
        if api_key is None:
            api_key = os.environ.get("GEMINI_API_KEY")
        if not api_key:
            raise ValueError("no api_key: set GEMINI_API_KEY to a key of aistudio.google.com")
        _check_unicode(model=model, system=system)
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

        Each request iterates over the model in its own task, with the caller's context variables.
        Cancelling the request, or leaving its block, cancels the iteration and closes an async
        generator; the caller waits at most a second for that. While 64 KiB of text are waiting for
        the consumer, the iteration is suspended.

        A `gprochat_anyio.site.ModelError` from the model becomes a `SiteError`, or a
        `RateLimitError` for status 429. Any other exception becomes a `SiteError` that does not
        quote it; the log says where it was raised.

        :param model: A callable that takes a history, a tuple of `gprochat_anyio.site.Turn`, and
            returns an async iterable of text. It may end with a `gprochat_anyio.site.Finish`.
        :param name: The model's name. `None` uses its `name` or `__name__`.
        :raises ValueError: If an argument is invalid. The message names it.
        """
        if not callable(model):
            raise ValueError("model must be a callable from a history to an async iterable of text")
        _check_unicode(name=name)
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
        client._opener = endpoint  # noqa: SLF001 - an attribute of this class
        return client

    @classmethod
    @hide_arguments
    def from_env(cls, **overrides: Any) -> Self:
        """Return a client configured by GPROCHAT_URL, GPROCHAT_SECRET_KEY and GPROCHAT_PASSWORD.

        :param overrides: Arguments of `Client`. They take precedence over the environment.
        :raises ValueError: If there is no URL, or a setting is invalid.
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
        """The API's address, without credentials. For a model in this process: `model:` and its
        name."""
        return self._opener.url

    @property
    def model(self) -> str | None:
        """The model's name. `None` for a GPROChat site, which chooses its model."""
        return self._opener.model

    @property
    def timeouts(self) -> Timeouts:
        """The default time limits of a request."""
        return self._opener.timeouts

    @property
    def retry(self) -> Retry:
        """The policy for retries before the first text."""
        return self._opener.retry

    async def check_password(self) -> bool:
        """Return True if the site accepts this client's password, or requires none.

        :raises GPROChatError: If the request fails.
        :raises TypeError: If this is not a client of a GPROChat site.
        """
        return await self._opener.check_password()


def _check_unicode(**texts: object) -> None:
    """Check that no text has a lone surrogate, which cannot be sent or logged.

    :raises ValueError: If one has. The message names the argument.
    """
    for argument, text in texts.items():
        try:
            if isinstance(text, str):
                text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{argument} is not valid Unicode; check how it was read") from None
