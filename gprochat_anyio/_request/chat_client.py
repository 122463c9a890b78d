"""The methods that request replies, shared by clients of one endpoint and of several."""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

import anyio
from anyio.abc import ObjectSendStream, TaskStatus

from gprochat_anyio._errors import GPROChatError, InvalidPromptError
from gprochat_anyio._settings import Timeouts
from gprochat_anyio._wire.messages import Prompt

from .consuming import collect, forward, puts_into
from .opener import Opener, PreparedRequest
from .reply import Reply
from .stream import ReplyStream, open_channel
from .tags import UNTAGGED, note_of

_AnyOpener = TypeVar("_AnyOpener", bound=Opener)
_Tag = TypeVar("_Tag")


class ChatClient(Generic[_AnyOpener]):
    """Base class of `Client` and `Fleet`."""

    _opener: _AnyOpener
    """The opener of its requests, set by the subclass."""

    async def __aenter__(self) -> Self:
        self._opener.check_usable()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the idle connections. Connections in use are closed when their replies end.

        :raises RuntimeError: If called in another event loop than the client's, or after a fork.
        """
        await self._opener.aclose()

    def stream(self, prompt: Prompt, *, timeouts: Timeouts | None = None) -> ReplyStream:
        """Return a stream of the reply: `async with client.stream(prompt) as chunks`.

        :param timeouts: Time limits that override the client's.
        :raises GPROChatError: On entering the block, if the request fails before the first text. An
            invalid prompt raises `InvalidPromptError`. See `ReplyStream`.
        """
        return ReplyStream(
            partial(open_channel, self._opener, PreparedRequest.of(prompt, timeouts))
        )

    async def ask(self, prompt: Prompt, *, timeouts: Timeouts | None = None) -> Reply:
        """Return the complete reply. Cancellation closes the connection.

        :param timeouts: Time limits that override the client's.
        :raises GPROChatError: If the request or the reply fails.
        """
        request = PreparedRequest.of(prompt, timeouts)
        del prompt
        if isinstance(request, InvalidPromptError):
            raise request
        return await collect(self._opener, request)

    @overload
    async def stream_to(
        self,
        prompt: Prompt,
        send: ObjectSendStream[str],
        *,
        timeouts: Timeouts | None = None,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> Reply: ...

    @overload
    async def stream_to(
        self,
        prompt: Prompt,
        send: ObjectSendStream[tuple[_Tag, str]],
        *,
        tag: _Tag,
        timeouts: Timeouts | None = None,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> Reply: ...

    async def stream_to(
        self,
        prompt: Prompt,
        send: ObjectSendStream[Any],
        *,
        tag: object = UNTAGGED,
        timeouts: Timeouts | None = None,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> Reply:
        """Send the reply's text to a channel as it arrives, and return the reply.

        In a task group, use `tg.start_soon(client.stream_to, prompt, send)`, with a clone of `send`
        for each task. `await tg.start(...)` returns once the first text has arrived. If the
        receiving end is closed, the request is abandoned, and the reply so far is returned.
        Cancellation closes the connection.

        Text goes directly into a memory object stream while there is room.

        :param send: The channel's send end. This method closes it in every case.
        :param tag: Identifies one of several prompts that share a channel. If given, the items are
            `(tag, text)` instead of `text`, and errors get a note with the tag's first 100
            characters. Any object may be a tag, including `None`.
        :param timeouts: Time limits that override the client's. `idle` does not count while 64 KiB
            of text are waiting for room in the channel.
        :raises GPROChatError: If the request or the reply fails.
        """
        async with send:
            try:
                request = PreparedRequest.of(prompt, timeouts)
                del prompt
                if isinstance(request, InvalidPromptError):
                    raise request
                offer, put = puts_into(send, tag)
                return await forward(self._opener, request, offer, put, started=task_status.started)
            except GPROChatError as error:
                if tag is not UNTAGGED:
                    error.add_note(note_of(tag))
                raise


@overload
def opener_of(client: ChatClient[_AnyOpener]) -> _AnyOpener: ...
@overload
def opener_of(client: ChatClient[Any]) -> Opener: ...
def opener_of(client: ChatClient[_AnyOpener]) -> _AnyOpener:
    """Return the opener of a client's requests, for fan-outs, races and conversations."""
    return client._opener  # noqa: SLF001 - of a class in this module
