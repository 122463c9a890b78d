"""The synchronous client, which runs a `Client` in an event loop in a thread."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from gprochat_anyio._client import Client
from gprochat_anyio._conversation.conversation import Conversation
from gprochat_anyio._conversation.serialization import MAX_MESSAGES
from gprochat_anyio._errors import InvalidPromptError
from gprochat_anyio._fanout.fan_out import gather
from gprochat_anyio._fanout.outcomes import Outcome
from gprochat_anyio._fanout.plan import OnError
from gprochat_anyio._fanout.prompts import PromptSource
from gprochat_anyio._redaction import hide_arguments
from gprochat_anyio._request.building import MAX_REPLY_SIZE
from gprochat_anyio._request.chat_client import ChatClient
from gprochat_anyio._request.limiter import Limiter
from gprochat_anyio._request.reply import Reply
from gprochat_anyio._request.stream import ReplyStream
from gprochat_anyio._settings import AsyncTransport, Timeouts
from gprochat_anyio._wire.messages import Prompt, checked, history

from .loop_thread import Backend, LoopThread
from .sync_conversation import SyncConversation
from .sync_stream import SyncReplyStream

if TYPE_CHECKING:
    import ssl

    from gprochat_anyio._fleet.fleet import Fleet
    from gprochat_anyio._settings import Retry


class SyncClient:
    """A synchronous client of a GPROChat site.

    ::

        with SyncClient(url) as client:
            print(client.ask("Hello").text)
            with client.stream("Tell me a story") as chunks:
                for chunk in chunks:
                    print(chunk, end="", flush=True)

    Each method runs the same method of `Client` in an event loop in a separate thread, which the
    first call starts and `close()` ends. Any number of threads may use the client concurrently. It
    also works while an event loop is running in the caller's thread, such as in a notebook, but it
    blocks that loop: async functions should use `Client`.

    Ctrl-C, or any exception of a signal handler, cancels the request that a method is waiting for,
    closes its connection and is raised. The client stays usable. A client that is not closed emits
    a ResourceWarning and does not keep the interpreter from exiting. After a fork, create a new
    client.

    :param url: The site's address. It and the other parameters are those of `Client`.
    :param backend: The event loop, "asyncio" or "trio".
    :raises ValueError: If an argument is invalid. The message names it.
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
        backend: Backend = "asyncio",
    ) -> None:
        client = Client(
            url,
            secret_key=secret_key,
            password=password,
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
            failure_marker=failure_marker,
        )
        self._wrap(client, backend)

    @classmethod
    @hide_arguments
    def from_env(cls, *, backend: Backend = "asyncio", **overrides: Any) -> Self:
        """Return a client configured by GPROCHAT_URL, GPROCHAT_SECRET_KEY and GPROCHAT_PASSWORD.

        :param overrides: Arguments of `SyncClient`. They take precedence over the environment.
        :raises ValueError: If there is no URL, or a setting is invalid.
        """
        client = cls.__new__(cls)
        client._wrap(Client.from_env(**overrides), backend)  # noqa: SLF001 - of this class
        return client

    @classmethod
    def of(cls, client: Client | Fleet, *, backend: Backend = "asyncio") -> Self:
        """Return a synchronous client that uses a `Fleet`, or an existing `Client`.

        ::

            with SyncClient.of(Fleet([Client(url_a), Client(url_b)])) as client:
                print(client.ask("Hello").text)

        :param client: The client, which must not be used in any other event loop. `close()` closes
            it.
        :param backend: The event loop, "asyncio" or "trio".
        :raises ValueError: If an argument is invalid. The message names it.
        """
        if not isinstance(client, ChatClient):
            raise ValueError(f"client must be a Client or a Fleet, not {type(client).__name__}")
        sync = cls.__new__(cls)
        sync._wrap(client, backend)  # noqa: SLF001 - of this class
        return sync

    def _wrap(self, client: Client | Fleet, backend: Backend) -> None:
        self._client = client
        self._loop = LoopThread(client, backend=backend, name=type(self).__name__)
        self._finalizer = weakref.finalize(self, self._loop.abandon)

    def __repr__(self) -> str:
        client = getattr(self, "_client", None)  # none yet in a traceback of `__init__`
        return f"<SyncClient of {client!r}>"

    @property
    def timeouts(self) -> Timeouts:
        """The default time limits of a request."""
        return self._client.timeouts

    @property
    def retry(self) -> Retry:
        """The policy for retries before the first text."""
        return self._client.retry

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel all running calls, close all connections and end the event loop.

        This waits until that is done, but not for name lookups. It may be called in any thread and
        repeatedly. The cancelled calls, and all calls afterwards, raise `RuntimeError`.
        """
        self._loop.close()
        self._finalizer.detach()

    def stream(self, prompt: Prompt, *, timeouts: Timeouts | None = None) -> SyncReplyStream:
        """Return a stream of the reply:
        `with client.stream(prompt) as chunks: for chunk in chunks`.

        A `for` loop that runs to its end needs no `with`: `for chunk in client.stream(prompt)`. See
        `SyncReplyStream`.

        :param timeouts: Time limits that override the client's.
        :raises GPROChatError: On entering the block, if the request fails before the first text.
        """
        return self._sync(self._client.stream(prompt, timeouts=timeouts))

    def ask(self, prompt: Prompt, *, timeouts: Timeouts | None = None) -> Reply:
        """Return the complete reply.

        :param timeouts: Time limits that override the client's.
        :raises GPROChatError: If the request or the reply fails.
        """
        messages = checked(history, prompt)
        del prompt  # an error's traceback would show the frame's variables
        if isinstance(messages, InvalidPromptError):
            raise messages
        return self._loop.run(partial(self._client.ask, messages, timeouts=timeouts))

    def check_password(self) -> bool:
        """Return True if the site accepts this client's password, or requires none.

        :raises GPROChatError: If the request fails.
        """
        return self._loop.run(self._client.check_password)

    def gather(
        self,
        prompts: Iterable[Prompt] | AsyncIterable[Prompt],
        *,
        max_at_once: int | None = None,
        max_per_second: float | None = None,
        limiter: Limiter | None = None,
        timeouts: Timeouts | None = None,
        on_error: OnError = "collect",
        adaptive: bool = True,
    ) -> list[Outcome]:
        """Ask many prompts at once, and return an `Outcome` for each, in the order of the input.

        Ctrl-C cancels all requests. Everything else is as for `gprochat_anyio.gather`.

        :param prompts: The prompts. An iterable is exhausted first, in the caller's thread.
        """
        PromptSource(prompts)  # to validate them
        if not isinstance(prompts, AsyncIterable):
            prompts = iter(list(prompts))  # an iterator's repr shows no prompts in tracebacks
        return self._loop.run(
            partial(
                gather,
                self._client,
                prompts,
                max_at_once=max_at_once,
                max_per_second=max_per_second,
                limiter=limiter,
                timeouts=timeouts,
                on_error=on_error,
                adaptive=adaptive,
            )
        )

    def conversation(
        self, system: str | None = None, max_messages: int | None = MAX_MESSAGES
    ) -> SyncConversation:
        """Return a conversation. The parameters and errors are those of `Conversation`."""
        return SyncConversation(Conversation(self._client, system, max_messages), self._sync)

    def conversation_from_json(
        self, data: str | bytes | Mapping[str, Any] | Sequence[Any]
    ) -> SyncConversation:
        """Return a conversation from the output of `to_json`; see `Conversation.from_json`."""
        return SyncConversation(Conversation.from_json(self._client, data), self._sync)

    def _sync(self, stream: ReplyStream) -> SyncReplyStream:
        return SyncReplyStream(self._loop, stream, owner=self)
