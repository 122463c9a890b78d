"""A conversation for callers without async."""

from __future__ import annotations

from collections.abc import Callable

from gprochat_anyio._conversation.conversation import Conversation
from gprochat_anyio._request.reply import Reply
from gprochat_anyio._request.stream import ReplyStream
from gprochat_anyio._settings import Timeouts
from gprochat_anyio._wire.messages import Message

from .sync_stream import SyncReplyStream


class SyncConversation:
    """Turns with one site, each sent with those before it: `client.conversation()`.

    All is as with `Conversation`; its turns are `with` blocks. A plain `for` over a turn can not
    tell an exception in its body from `break`: it records what was handed over in either case.

    :param sync: makes a stream of a turn one for callers without async
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
        """All turns, oldest first."""
        return self._conversation.messages

    @property
    def system(self) -> str | None:
        """The instructions; they may be changed between turns."""
        return self._conversation.system

    @system.setter
    def system(self, text: str | None) -> None:
        self._conversation.system = text

    @property
    def max_messages(self) -> int | None:
        """How many messages are sent at the most; None is no limit."""
        return self._conversation.max_messages

    def stream(self, text: str, *, timeouts: Timeouts | None = None) -> SyncReplyStream:
        """Ask, and get the reply as it arrives: `with conversation.stream(text) as chunks`."""
        return self._sync(self._conversation.stream(text, timeouts=timeouts))

    def ask(self, text: str, *, timeouts: Timeouts | None = None) -> Reply:
        """Ask, and get the whole reply."""
        chunks = self.stream(text, timeouts=timeouts)
        del text
        with chunks:
            chunks.read()
        return Reply(chunks.text, chunks.timing, chunks.finish_reason, chunks.usage)

    def retry(self, *, timeouts: Timeouts | None = None) -> SyncReplyStream:
        """Ask the last turn again: `with conversation.retry() as chunks`."""
        return self._sync(self._conversation.retry(timeouts=timeouts))

    def undo(self) -> tuple[Message, ...]:
        """Forget the last turn, and return its two messages; none, if there is no turn."""
        return self._conversation.undo()

    def to_json(self) -> str:
        """Everything but the client, as JSON, for `SyncClient.conversation_from_json`, or
        `Conversation.from_json`."""
        return self._conversation.to_json()
