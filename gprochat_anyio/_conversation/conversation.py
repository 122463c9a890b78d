"""Conversations, which keep the history of a chat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from gprochat_anyio._errors import InvalidPromptError
from gprochat_anyio._request.chat_client import ChatClient
from gprochat_anyio._request.reply import Reply
from gprochat_anyio._request.stream import ReplyStream
from gprochat_anyio._settings import Timeouts
from gprochat_anyio._wire.messages import Message, checked

from .serialization import MAX_MESSAGES, Saved, checked_count, read, write
from .turn import Turns, TurnStream

if TYPE_CHECKING:
    from gprochat_anyio._client import Client
    from gprochat_anyio._fleet.fleet import Fleet


class Conversation:
    """A chat with one site, in which every turn is sent with the turns before it.

    ::

        conversation = Conversation(client, system="Answer in one sentence.")
        async with conversation.stream("Why is the sky blue?") as chunks:
            async for chunk in chunks:
                print(chunk, end="")
        reply = await conversation.ask("And at sunset?")

    A turn is recorded as follows:

    - If its reply is complete, it is recorded at the end of the iteration.
    - If it was stopped, by `stop()` or by leaving its block early (`break`), it is recorded with
      the text received by then, `chunks.text`. If that is blank, nothing is recorded.
    - If it failed, or an exception or a cancellation left its block before the end of the reply,
      the history is unchanged. `retry()` can still ask its question.

    Recording is atomic with respect to cancellation. Only one turn can be active at a time. The
    `repr` shows no texts.

    :param client: A `Client` or a `Fleet`. The caller closes it.
    :param system: Instructions, which are sent before the messages.
    :param max_messages: Maximum number of messages to send, including the question. The oldest are
        omitted, and the first one sent is the user's. `None` sends all. `messages` and `to_json`
        always have all of them.
    :raises ValueError: If an argument is invalid. The message names it.
    """

    def __init__(
        self,
        client: Client | Fleet,
        system: str | None = None,
        max_messages: int | None = MAX_MESSAGES,
    ) -> None:
        if not isinstance(client, ChatClient):
            raise ValueError(f"client must be a Client or a Fleet, not {type(client).__name__}")
        self._client = client
        self._system: Message | None = None
        self.system = system
        self._max_messages = checked_count(max_messages)
        self._turns = Turns()

    def __repr__(self) -> str:
        return f"<Conversation of {len(self.messages)} messages with {self._client!r}>"

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages of all turns, oldest first. The roles `"user"` and `"model"` alternate."""
        return self._turns.messages

    @property
    def system(self) -> str | None:
        """The instructions, which may be changed between turns."""
        return None if self._system is None else self._system.content

    @system.setter
    def system(self, text: str | None) -> None:
        system = None if text is None else checked(partial(Message, "system"), text)
        del text
        if isinstance(system, InvalidPromptError):
            raise ValueError(f"system must be a text or None: {system}")
        self._system = system

    @property
    def max_messages(self) -> int | None:
        """Maximum number of messages to send. `None` for no limit."""
        return self._max_messages

    def stream(self, text: str, *, timeouts: Timeouts | None = None) -> ReplyStream:
        """Return a stream of the reply: `async with conversation.stream(text) as chunks`.

        :param timeouts: Time limits that override the client's.
        :raises RuntimeError: On entering the block, if another turn is active.
        :raises GPROChatError: As for `Client.stream`.
        """
        return self._stream(checked(partial(Message, "user"), text), timeouts)

    async def ask(self, text: str, *, timeouts: Timeouts | None = None) -> Reply:
        """Return the complete reply. Cancellation leaves the history unchanged.

        :param timeouts: Time limits that override the client's.
        :raises RuntimeError: If another turn is active.
        :raises GPROChatError: If the request or the reply fails.
        """
        chunks = self.stream(text, timeouts=timeouts)
        del text
        async with chunks:
            await chunks.read()
        return Reply(chunks.text, chunks.timing, chunks.finish_reason, chunks.usage)

    def retry(self, *, timeouts: Timeouts | None = None) -> ReplyStream:
        """Ask the last turn again: `async with conversation.retry() as chunks`.

        When the new reply is recorded, it replaces the previous one. If nothing is recorded, the
        previous one stays. A failed turn counts as the last turn, and its question is asked again.

        :param timeouts: Time limits that override the client's.
        :raises RuntimeError: If there is no turn or, on entering the block, if another turn is
            active.
        :raises GPROChatError: As for `Client.stream`.
        """
        self._turns.last_question()
        return self._stream(None, timeouts)

    def undo(self) -> tuple[Message, ...]:
        """Remove the last turn, and return its two messages, or none if there is no turn.

        :raises RuntimeError: If a turn is active.
        """
        return self._turns.undo()

    def to_json(self) -> str:
        """Serialize everything except the client as JSON in ASCII, for `from_json`.

        `messages` has the format of the GPROChat wire: a list of
        `{"role": "user" or "model", "parts": [{"text": ...}]}`.
        """
        return write(Saved(self.system, self.max_messages, self.messages))

    @classmethod
    def from_json(
        cls, client: Client | Fleet, data: str | bytes | Mapping[str, Any] | Sequence[Any]
    ) -> Self:
        """Return a conversation from the output of `to_json`.

        :param data: JSON, or its parsed value. A list of messages is accepted as well, also in the
            format that the original site's page keeps in the browser: a list of
            `{"role": "user" or "assistant", "content": ...}`.
        :raises ValueError: If a part is invalid, or would be lost. The message says where.
        """
        saved = read(data)
        del data
        if isinstance(saved, ValueError):
            raise saved
        conversation = cls(client, saved.system, saved.max_messages)
        conversation._turns = Turns(saved.messages)
        return conversation

    def _stream(
        self, question: Message | InvalidPromptError | None, timeouts: Timeouts | None
    ) -> ReplyStream:
        return TurnStream(
            self._client,
            self._turns,
            question,
            system=self._system,
            max_messages=self._max_messages,
            timeouts=timeouts,
        )
