"""The client for callers without async: the async one, in an event loop in a thread."""

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
from gprochat_anyio._settings import Timeouts
from gprochat_anyio._wire.messages import Prompt, checked, history

from .loop_thread import Backend, LoopThread
from .sync_conversation import SyncConversation
from .sync_stream import SyncReplyStream

if TYPE_CHECKING:
    import ssl

    import httpx

    from gprochat_anyio._fleet.fleet import Fleet
    from gprochat_anyio._settings import Retry


class SyncClient:
    """A client of one GPROChat site for callers without async, a running event loop's included.

    ::

        with SyncClient(url) as client:
            print(client.ask("Hello").text)
            with client.stream("Tell me a story") as chunks:
                for chunk in chunks:
                    print(chunk, end="", flush=True)

    Each method runs the one of `Client` in an event loop in a thread of its own, which the first
    call starts and `close()` ends. Any number of threads may use it at the same time. In an async
    function it blocks the caller's event loop: use `Client` there.

    Ctrl-C (or whatever else a signal's handler raises) while a method waits cancels the request,
    closes its connection and is raised; the client stays usable. Left unclosed, it gives a
    ResourceWarning and does not keep the interpreter from ending. After a fork, make a new one.

    :param url: and all the others: see `Client`
    :param backend: the event loop, "asyncio" or "trio"
    :raises ValueError: that names the argument, for a setting that can not be
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
        """A client set up by GPROCHAT_URL, GPROCHAT_SECRET_KEY and GPROCHAT_PASSWORD.

        :param overrides: arguments of `SyncClient`, which go before the environment
        :raises ValueError: if there is no URL, or a setting can not be
        """
        client = cls.__new__(cls)
        client._wrap(Client.from_env(**overrides), backend)  # noqa: SLF001 - its own
        return client

    @classmethod
    def of(cls, client: Client | Fleet, *, backend: Backend = "asyncio") -> Self:
        """Return a client over a `Fleet`, or over a `Client` that was set up elsewhere.

        ::

            with SyncClient.of(Fleet([Client(url_a), Client(url_b)])) as client:
                print(client.ask("Hello").text)

        :param client: Not used in an event loop before, nor from then on. `close()` closes it.
        :param backend: The event loop, "asyncio" or "trio".
        :raises ValueError: If an argument is invalid. The message names it.
        """
        if not isinstance(client, ChatClient):
            raise ValueError(f"client must be a Client or a Fleet, not {type(client).__name__}")
        sync = cls.__new__(cls)
        sync._wrap(client, backend)  # noqa: SLF001 - its own
        return sync

    def _wrap(self, client: Client | Fleet, backend: Backend) -> None:
        self._client = client
        self._loop = LoopThread(client, backend=backend, name=type(self).__name__)
        self._finalizer = weakref.finalize(self, self._loop.forsake)

    def __repr__(self) -> str:
        client = getattr(self, "_client", None)  # none yet in a traceback of `__init__`
        return f"<SyncClient of {client!r}>"

    @property
    def timeouts(self) -> Timeouts:
        """The limits of every request."""
        return self._client.timeouts

    @property
    def retry(self) -> Retry:
        """What is tried again before the first text."""
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
        """Cancel what other threads have running, close all connections and end the event loop.

        Returns when that is done; a name lookup is not waited for. From any thread, and any number
        of times. Whatever is called afterwards raises a RuntimeError, as do the calls that it cut
        off.
        """
        self._loop.close()
        self._finalizer.detach()

    def stream(self, prompt: Prompt, *, timeouts: Timeouts | None = None) -> SyncReplyStream:
        """The reply as it arrives: `with client.stream(prompt) as chunks: for chunk in chunks`.

        Without `with`, `for chunk in client.stream(prompt)` will do if the loop runs to its end:
        see `SyncReplyStream`.

        :param timeouts: overrides the client's, field by field
        :raises GPROChatError: on entering the block, if there is no first text
        """
        return self._sync(self._client.stream(prompt, timeouts=timeouts))

    def ask(self, prompt: Prompt, *, timeouts: Timeouts | None = None) -> Reply:
        """The whole reply.

        :param timeouts: overrides the client's, field by field
        :raises GPROChatError: if there is no complete reply
        """
        messages = checked(history, prompt)
        del prompt  # an error's traceback shows what this frame holds
        if isinstance(messages, InvalidPromptError):
            raise messages
        return self._loop.run(partial(self._client.ask, messages, timeouts=timeouts))

    def check_password(self) -> bool:
        """Whether the site accepts this client's password; also if it has none.

        :raises GPROChatError: if the site does not say
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
        """Ask many prompts at once, and get an `Outcome` for each, in the order of the input.

        Ctrl-C cancels all of them. All else is as with `gprochat_anyio.gather`.

        :param prompts: an iterable is read to its end first, in the caller's thread
        """
        PromptSource(prompts)  # the checks of it
        if not isinstance(prompts, AsyncIterable):
            prompts = iter(list(prompts))  # whose repr, in a traceback, has no prompts
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
        """A `Conversation` with the site; parameters and errors are that one's."""
        return SyncConversation(Conversation(self._client, system, max_messages), self._sync)

    def conversation_from_json(
        self, data: str | bytes | Mapping[str, Any] | Sequence[Any]
    ) -> SyncConversation:
        """A conversation as `to_json` gave it; see `Conversation.from_json`."""
        return SyncConversation(Conversation.from_json(self._client, data), self._sync)

    def _sync(self, stream: ReplyStream) -> SyncReplyStream:
        return SyncReplyStream(self._loop, stream, owner=self)
