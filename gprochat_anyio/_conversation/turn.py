"""The turns of a conversation, and the stream of the active one."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio

from gprochat_anyio._errors import GPROChatError, InvalidPromptError
from gprochat_anyio._request.chat_client import opener_of
from gprochat_anyio._request.incoming import IncomingReply
from gprochat_anyio._request.opener import PreparedRequest
from gprochat_anyio._request.sinks import ChannelSink
from gprochat_anyio._request.stream import ReplyStream, open_channel
from gprochat_anyio._settings import Timeouts, check
from gprochat_anyio._wire.messages import Message, history

if TYPE_CHECKING:
    from gprochat_anyio._client import Client
    from gprochat_anyio._fleet.fleet import Fleet


class Turns:
    """The recorded turns of a conversation, and the state of the active one.

    All changes are synchronous, and therefore atomic with respect to cancellation.

    :param messages: Alternating messages, of which the user's is first and the model's is last.
    """

    def __init__(self, messages: tuple[Message, ...] = ()) -> None:
        self.messages = messages
        self._unanswered: Message | None = None
        self._busy = False

    def check_idle(self) -> None:
        """Check that no turn is active.

        :raises RuntimeError: If one is.
        """
        if self._busy:
            raise RuntimeError(
                "this Conversation is in the middle of a turn; wait until its block is left, or "
                "use another Conversation"
            )

    def last_question(self) -> Message:
        """Return the question of the last turn, which may have failed.

        :raises RuntimeError: If there is no turn.
        """
        if self._unanswered is not None:
            return self._unanswered
        if not self.messages:
            raise RuntimeError("this Conversation has no turn to ask again; ask something first")
        return self.messages[-2]

    def begin(self, question: Message | None) -> tuple[tuple[Message, ...], Message]:
        """Begin a turn. Return the messages before it, and its question.

        :param question: The question. `None` repeats the last one.
        :raises RuntimeError: If a turn is active, or there is no question to repeat.
        """
        self.check_idle()
        if question is not None:
            self._unanswered = question
        turn = self.last_question()
        self._busy = True
        return (self.messages if self._unanswered is not None else self.messages[:-2]), turn

    def record(self, before: tuple[Message, ...], question: Message, text: str) -> None:
        """Record a turn, which replaces all messages after `before`."""
        if text and not text.isspace():  # a site rejects a history with a blank message
            self.messages = (*before, question, Message("model", text))
            self._unanswered = None

    def end(self) -> None:
        """End the active turn, recorded or not."""
        self._busy = False

    def undo(self) -> tuple[Message, ...]:
        """Remove the last turn, and return its messages, or none if there is no turn."""
        self.check_idle()
        self._unanswered = None
        removed, self.messages = self.messages[-2:], self.messages[:-2]
        return removed


def latest(messages: tuple[Message, ...], limit: int | None) -> tuple[Message, ...]:
    """Return as many of the last messages as the limit allows, starting with a user message.

    :param messages: Alternating messages, of which the first and the last are the user's.
    :param limit: Maximum number of messages, at least 1. `None` for no limit.
    """
    kept = len(messages) if limit is None else min(limit, len(messages))
    return messages[-(kept - (kept + 1) % 2) :]


class TurnStream(ReplyStream):
    """The reply of a turn as it arrives; see `Conversation.stream`.

    :param question: The question. `None` repeats the last one.
    :param system: The system message, which is sent before the history.
    :param max_messages: Maximum number of messages to send, including the question.
    """

    def __init__(
        self,
        client: Client | Fleet,
        turns: Turns,
        question: Message | InvalidPromptError | None,
        *,
        system: Message | None,
        max_messages: int | None,
        timeouts: Timeouts | None,
    ) -> None:
        super().__init__(self._open)
        self._client = client
        self._turns = turns
        self._question = question
        self._system = () if system is None else (system,)
        self._max_messages = max_messages
        check("timeouts", timeouts, Timeouts, type(None))
        self._timeouts = timeouts
        self._turn: tuple[tuple[Message, ...], Message] | None = None

    async def __aenter__(self) -> Self:
        if isinstance(self._question, InvalidPromptError):
            raise self._question
        self._turn = self._turns.begin(self._question)
        try:
            return await super().__aenter__()
        except BaseException:
            self._turn = None
            self._turns.end()
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self._settle(keep=exc_type is None)
        try:
            await super().__aexit__(exc_type, exc_val, exc_tb)
        finally:
            self._turns.end()

    def receive_nowait(self) -> str:
        try:
            return super().receive_nowait()
        except anyio.EndOfStream:
            self._settle(keep=True)
            raise
        except GPROChatError:
            self._settle(keep=False)
            raise

    def stop(self) -> None:
        super().stop()
        self._settle(keep=self._reply is not None)

    async def _open(self) -> tuple[IncomingReply, ChannelSink]:
        assert self._turn is not None
        before, question = self._turn
        messages = latest((*before, question), self._max_messages)
        request = PreparedRequest(history((*self._system, *messages)), self._timeouts)
        return await open_channel(opener_of(self._client), request)

    def _settle(self, *, keep: bool) -> None:
        """End the turn, once, and record it with the text received so far if `keep` is True."""
        turn, self._turn = self._turn, None
        if keep and turn is not None:
            self._turns.record(*turn, self.text)
