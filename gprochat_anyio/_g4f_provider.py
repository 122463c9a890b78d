"""GPROChat, the interface of the original provider class.

It serves code written for that class, and flattens a history into one message as that class does.
`Client` sends the messages of a history separately, as a site's own page does.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import AsyncGenerator, Iterable, Mapping
from functools import partial
from typing import Any, ClassVar

from anyio.lowlevel import current_token

from gprochat_anyio._request.building import MAX_REPLY_SIZE
from gprochat_anyio._request.opener import PreparedRequest
from gprochat_anyio._request.stream import ReplyStream, open_channel
from gprochat_anyio._wire.gprochat import GENERATE_PATH, sign
from gprochat_anyio._wire.messages import Message, checked, flattened

from ._client import Client
from ._errors import InvalidPromptError
from ._redaction import hide_arguments
from ._request.chat_client import opener_of
from ._settings import Timeouts


class GPROChat:
    """A GPROChat site as a provider: `async for chunk in GPROChat.create_async_generator(...)`.

    Keyword arguments take precedence over a subclass's attributes, and those over GPROCHAT_URL,
    GPROCHAT_SECRET_KEY and GPROCHAT_PASSWORD.
    """

    url: ClassVar[str] = ""
    """The site's address. If empty, GPROCHAT_URL is used."""
    api_endpoint: ClassVar[str] = GENERATE_PATH
    """The endpoint of requests: an absolute URL, or a path below `url`."""
    secret_key: ClassVar[str | None] = None
    """The site's secret key. If `None`, GPROCHAT_SECRET_KEY is used."""
    working: ClassVar[bool] = False
    """False, because the public site is gone. A subclass for a working site sets it to True."""
    supports_stream: ClassVar[bool] = True
    """True, as replies are streamed."""
    supports_message_history: ClassVar[bool] = True
    """True, as more than one message may be passed."""
    default_model: ClassVar[str] = "gemini-1.5-pro"
    """The original's value. It has no effect, as the site chooses its model."""

    @staticmethod
    def generate_signature(timestamp: int, message: str, secret_key: str | None = None) -> str:
        """Return the signature of a message.

        :param timestamp: The Unix time in milliseconds.
        :param secret_key: The secret key. `None` uses GPROCHAT_SECRET_KEY, or the empty key if that
            is not set.
        """
        if secret_key is None:
            secret_key = os.environ.get("GPROCHAT_SECRET_KEY", "")
        return sign(timestamp, message, secret_key)

    @classmethod
    @hide_arguments
    def create_async_generator(
        cls,
        model: str,  # noqa: ARG003 - part of the interface
        messages: Iterable[Message | Mapping[str, Any]],
        proxy: str | None = None,
        *,
        url: str | None = None,
        secret_key: str | None = None,
        password: str | None = None,
        timeouts: Timeouts | None = None,
        max_reply_size: int | None = MAX_REPLY_SIZE,
        **kwargs: Any,  # noqa: ARG003
    ) -> AsyncGenerator[str, None]:
        """Return an async generator of the reply's text, for a plain `async for`.

        No cancel scope or task group is open while it is suspended, so iteration may stop at any
        piece. When stopping early, close it with `contextlib.aclosing`, which closes the connection
        immediately. If it is left to the garbage collector, it warns and the event loop closes it.

        :param model: Ignored, as the site chooses its model.
        :param messages: The history. `format_prompt` flattens it into one message.
        :param proxy: The URL of a proxy.
        :param url: The site's address.
        :param timeouts: Time limits of the request.
        :param max_reply_size: Maximum size of the reply's body in bytes. `None` for no limit.
        :param kwargs: Ignored arguments of other providers.
        :raises ValueError: If a setting is invalid, or there is no address.
        :raises GPROChatError: While iterating, if the reply is not complete.
        """
        address, path = cls._endpoint(url)
        settings: dict[str, Any] = {
            "proxy": proxy,
            "timeouts": timeouts,
            "max_reply_size": max_reply_size,
        }
        if address:
            settings["url"] = address
        key = cls.secret_key if secret_key is None else secret_key
        if key is not None:
            settings["secret_key"] = key
        if password is not None:
            settings["password"] = password
        client = Client.from_env(**settings)
        return _Pieces(_pieces(client, checked(flattened, messages), path))

    @classmethod
    def _endpoint(cls, url: str | None) -> tuple[str, str]:
        """Return the site's address, which is empty for the environment's, and the path below
        it."""
        endpoint, base = cls.api_endpoint, cls.url.rstrip("/")
        if "://" not in endpoint:
            return url or base, f"/{endpoint.lstrip('/')}"
        if url:
            return url, GENERATE_PATH
        if base and endpoint.startswith(f"{base}/"):
            return base, endpoint.removeprefix(base)
        scheme, _, rest = endpoint.partition("://")
        host, _, path = rest.partition("/")
        return f"{scheme}://{host}", f"/{path}"


async def _pieces(
    client: Client, prompt: Message | InvalidPromptError, path: str
) -> AsyncGenerator[str, None]:
    if isinstance(prompt, InvalidPromptError):
        raise prompt
    request = PreparedRequest((prompt,), path=path)
    async with client, ReplyStream(partial(open_channel, opener_of(client), request)) as chunks:
        async for text in chunks:
            yield text


class _Pieces(AsyncGenerator[str, None]):
    """An async generator that warns if it is dropped early on asyncio. Trio itself warns."""

    def __init__(self, generator: AsyncGenerator[str, None]) -> None:
        self._generator = generator
        self._left_open = False

    async def asend(self, value: None) -> str:
        self._left_open = hasattr(current_token().native_token, "call_soon")
        try:
            return await self._generator.asend(value)
        except BaseException:
            self._left_open = False
            raise

    async def athrow(self, *args: Any) -> str:
        self._left_open = False
        return await self._generator.athrow(*args)

    async def aclose(self) -> None:
        self._left_open = False
        await self._generator.aclose()

    def __del__(self) -> None:
        if self._left_open:
            warnings.warn(
                "a reply was dropped before its end: close its generator, with "
                "`async with contextlib.aclosing(...)`, to close its connection at once",
                ResourceWarning,
                stacklevel=1,
            )
