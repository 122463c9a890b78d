"""A conversation: turns with one site, each sent with those before it."""

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
    """Turns with one site, each sent with those before it.

    ::

        conversation = Conversation(client, system="Answer in one sentence.")
        async with conversation.stream("Why is the sky blue?") as chunks:
            async for chunk in chunks:
                print(chunk, end="")
        reply = await conversation.ask("And at sunset?")

    What becomes of a turn:

    - Its reply is complete, and the iteration has ended: it is recorded then.
    - It was stopped, by `stop()` or by leaving its block early (`break`): it is recorded with the
      text that was handed over by then, `chunks.text`. If there was none, or only white space, it
      leaves no trace.
    - It failed, or an exception or a cancellation left its block before its reply had ended: the
      history is as it was. `retry()` asks its question all the same.

    A turn is recorded as a whole or not at all, wherever a cancellation comes. One turn is asked
    at a time. A `repr` shows nothing of the texts.

    :param client: A `Client` or a `Fleet`. It stays open, and is the caller's to close.
    :param system: instructions, put before the first user message that is sent, whichever it is
    :param max_messages: how many messages are sent at the most, the question included; the oldest
        stay behind, and what is sent begins with the user's. None sends all. `messages` and
        `to_json` have all of them in any case.
    :raises ValueError: that names the argument, for one that can not be
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
        """All turns, oldest first: one of role `"user"`, one of role `"model"`, and so on."""
        return self._turns.messages

    @property
    def system(self) -> str | None:
        """The instructions; they may be changed between turns."""
        return None if self._system is None else self._system.content

    @system.setter
    def system(self, text: str | None) -> None:
        system = None if text is None else checked(partial(Message, "system"), text)
        del text
        if isinstance(system, InvalidPromptError):
            raise ValueError(f"system must be text, or None: {system}")
        self._system = system

    @property
    def max_messages(self) -> int | None:
        """How many messages are sent at the most; None is no limit."""
        return self._max_messages

    def stream(self, text: str, *, timeouts: Timeouts | None = None) -> ReplyStream:
        """Ask, and get the reply as it arrives: `async with conversation.stream(text) as chunks`.

        :param timeouts: overrides the client's, field by field
        :raises RuntimeError: on entering the block, if another turn is on its way
        :raises GPROChatError: as with `Client.stream`
        """
        return self._stream(checked(partial(Message, "user"), text), timeouts)

    async def ask(self, text: str, *, timeouts: Timeouts | None = None) -> Reply:
        """Ask, and get the whole reply. Cancelled, it leaves the history as it was.

        :param timeouts: overrides the client's, field by field
        :raises RuntimeError: if another turn is on its way
        :raises GPROChatError: if there is no complete reply
        """
        chunks = self.stream(text, timeouts=timeouts)
        del text
        async with chunks:
            await chunks.read()
        return Reply(chunks.text, chunks.timing, chunks.finish_reason, chunks.usage)

    def retry(self, *, timeouts: Timeouts | None = None) -> ReplyStream:
        """Ask the last turn again: `async with conversation.retry() as chunks`.

        The new reply takes the place of the old one as it is recorded; if there is none, the old
        one stays. A turn that failed is the last one too: its question is asked again.

        :param timeouts: overrides the client's, field by field
        :raises RuntimeError: if there is no turn; on entering the block, if one is on its way
        :raises GPROChatError: as with `Client.stream`
        """
        self._turns.last_question()
        return self._stream(None, timeouts)

    def undo(self) -> tuple[Message, ...]:
        """Forget the last turn, and return its two messages; none, if there is no turn.

        :raises RuntimeError: if a turn is on its way
        """
        return self._turns.undo()

    def to_json(self) -> str:
        """Everything but the client, as JSON in ASCII, for `from_json`.

        `messages` is a history as the site and its own page have it: a list of
        `{"role": "user" or "model", "parts": [{"text": ...}]}`.
        """
        return write(Saved(self.system, self.max_messages, self.messages))

    @classmethod
    def from_json(
        cls, client: Client | Fleet, data: str | bytes | Mapping[str, Any] | Sequence[Any]
    ) -> Self:
        """A conversation as `to_json` gave it, to be gone on with.

        :param data: JSON or what was parsed of it; a bare list of messages, as the site's own page
            keeps it, will do
        :raises ValueError: that names the place, for anything that could not be kept as it is
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
