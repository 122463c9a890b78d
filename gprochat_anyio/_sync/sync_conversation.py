"""Synchronous conversations."""

from __future__ import annotations

from collections.abc import Callable

from gprochat_anyio._conversation.conversation import Conversation
from gprochat_anyio._request.reply import Reply
from gprochat_anyio._request.stream import ReplyStream
from gprochat_anyio._settings import Timeouts
from gprochat_anyio._wire.messages import Message

from .sync_stream import SyncReplyStream


class SyncConversation:
    """A synchronous `Conversation`, made by `client.conversation()`.

    Its turns are `with` blocks. A plain `for` loop over a turn cannot distinguish an exception in
    its body from `break`, and records the text received so far in both cases.

    :param sync: Return the synchronous stream of a turn's stream.
    """

    def __init__(
        self, conversation: Conversation, sync: Callable[[ReplyStream], SyncReplyStream]
    ) -> None:
        self._conversation = conversation
        self._sync = sync

    def __repr__(self) -> str:
        return f"<Sync{repr(self._conversation).removeprefix('<')}"

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages of all turns, oldest first."""
        return self._conversation.messages

    @property
    def system(self) -> str | None:
        """The instructions, which may be changed between turns."""
        return self._conversation.system

    @system.setter
    def system(self, text: str | None) -> None:
        self._conversation.system = text

    @property
    def max_messages(self) -> int | None:
        """Maximum number of messages to send. `None` for no limit."""
        return self._conversation.max_messages

    def stream(self, text: str, *, timeouts: Timeouts | None = None) -> SyncReplyStream:
        """Return a stream of the reply: `with conversation.stream(text) as chunks`."""
        return self._sync(self._conversation.stream(text, timeouts=timeouts))

    def ask(self, text: str, *, timeouts: Timeouts | None = None) -> Reply:
        """Return the complete reply."""
        chunks = self.stream(text, timeouts=timeouts)
        del text
        with chunks:
            chunks.read()
        return Reply(chunks.text, chunks.timing, chunks.finish_reason, chunks.usage)

    def retry(self, *, timeouts: Timeouts | None = None) -> SyncReplyStream:
        """Ask the last turn again: `with conversation.retry() as chunks`."""
        return self._sync(self._conversation.retry(timeouts=timeouts))

    def undo(self) -> tuple[Message, ...]:
        """Remove the last turn, and return its two messages, or none if there is no turn."""
        return self._conversation.undo()

    def to_json(self) -> str:
        """Serialize everything except the client as JSON.

        `SyncClient.conversation_from_json` and `Conversation.from_json` read it.
        """
        return self._conversation.to_json()
