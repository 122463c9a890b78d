"""Asking for replies, whole, in pieces or into a channel: the same for one endpoint or several."""

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
    """The methods that `Client` and `Fleet` share."""

    _opener: _AnyOpener
    """Opens its requests; set by the subclass."""

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
        """Close the kept connections. Those in use are closed as their replies end.

        :raises RuntimeError: On another event loop than the client's, or after a fork.
        """
        await self._opener.aclose()

    def stream(self, prompt: Prompt, *, timeouts: Timeouts | None = None) -> ReplyStream:
        """Return the reply as it arrives: `async with client.stream(prompt) as chunks`.

        :param timeouts: overrides the client's, field by field
        :raises GPROChatError: On entering the block, if there is no first text; an
            `InvalidPromptError` for a prompt that no site would answer. See `ReplyStream`.
        """
        return ReplyStream(
            partial(open_channel, self._opener, PreparedRequest.of(prompt, timeouts))
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
        """Send the reply's text into a channel of the caller's, as it arrives, and return it.

        For a task group: `tg.start_soon(client.stream_to, prompt, send)`, with a clone of `send`
        for each of several; `await tg.start(...)` returns once the first text has arrived. If the
        receiving end is closed, the reply is given up, and what came of it returned.

        While there is room in a memory object stream, text goes straight into it as it arrives.

        :param send: closed in the end, whatever happens
        :param tag: tells prompts apart that share a channel. If it is given, the items are
            `(tag, text)` instead of `text`, and an error has a note that shows the tag, cut to 100
            characters. Any object is a tag, None included.
        :param timeouts: overrides the client's, field by field. `idle` stands still while 64 KiB of
            text wait for room in the channel.
        :raises GPROChatError: If there is no complete reply.
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
    """Return what opens a client's requests: for fan-outs, races and conversations."""
    return client._opener  # noqa: SLF001 - this module's own
