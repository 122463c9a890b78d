"""One site of a chat, with its conversation and log."""

from __future__ import annotations

import time
from collections.abc import Iterable

import anyio

from gprochat_anyio import Client, Conversation, Fleet, GPROChatError, Message, ReplyStream

from ._site import Site
from ._store import RETRIED, UNDONE, Kept, LoggedTurn


class Speaker:
    """A site of a chat, with its own history.

    :param client: The client to ask, which the caller closes.
    :param log: Earlier turns, including dropped ones.
    :raises ValueError: If `system` cannot be sent.
    """

    def __init__(
        self,
        site: Site,
        client: Client | Fleet,
        log: Iterable[LoggedTurn] = (),
        system: str | None = None,
    ) -> None:
        self.site = site
        self.client = client
        self._log = list(log)
        messages = [
            {"role": role, "parts": [{"text": text}]}
            for turn in self.turns
            for role, text in (("user", turn.question), ("model", turn.reply))
        ]
        self.conversation = Conversation.from_json(client, messages)
        self.conversation.system = system

    @property
    def turns(self) -> list[LoggedTurn]:
        """The turns of the conversation, without dropped ones."""
        return [turn for turn in self._log if turn.dropped is None]

    @property
    def kept(self) -> Kept:
        """The conversation for the log."""
        site = self.site
        return Kept(site.name, site.url, self.conversation.system, tuple(self._log), site.model)

    def begin(self) -> None:
        """Take the turns over into a new chat."""
        self._log = [turn._replace(earlier=True) for turn in self.turns]

    def emptied(self) -> Speaker:
        """Return a speaker of the same site without turns."""
        return Speaker(self.site, self.client, (), self.conversation.system)

    def loaded(self, data: bytes) -> Speaker:
        """Return a speaker of the same site that continues a saved conversation.

        :raises ValueError: If the data is not a conversation.
        """
        speaker = Speaker(self.site, self.client)
        speaker.conversation = Conversation.from_json(self.client, data)
        texts = [message.content for message in speaker.conversation.messages]
        speaker._log = [LoggedTurn(*pair) for pair in zip(texts[::2], texts[1::2], strict=True)]
        return speaker

    @property
    def answered(self) -> str | None:
        """The last question that has a reply."""
        turns = self.turns
        return turns[-1].question if turns else None

    def undo(self, question: str) -> None:
        """Drop the last turn if it asked this question, or else a question without a reply."""
        if self.answered == question:
            self._drop_last(UNDONE)
            self.conversation.undo()
        else:
            self.restore(self.conversation.to_json())

    def ask(self, question: str) -> Answer:
        """Return the answer to a question. The caller runs it."""
        return Answer(self, self.conversation.stream(question))

    def retry(self, question: str) -> Answer:
        """Return another answer to a question, to replace the last one if it has that question."""
        if self.answered != question:
            return self.ask(question)
        return Answer(self, self.conversation.retry(), before=self.conversation.to_json())

    def record(self, turn: LoggedTurn, *, replaces: bool) -> None:
        """Append a turn to the log.

        :param replaces: True if the turn replaces the last one.
        """
        if replaces:
            self._drop_last(RETRIED)
        self._log.append(turn)

    def restore(self, saved: str) -> None:
        """Restore an earlier state of the conversation."""
        self.conversation = Conversation.from_json(self.client, saved)

    def _drop_last(self, how: str) -> None:
        last = self.turns[-1]
        place = next(n for n in reversed(range(len(self._log))) if self._log[n] is last)
        self._log[place] = last._replace(dropped=how)


class Answer:
    """A site's reply to one question. `run` receives it, and `more` returns its text.

    :param before: The conversation as JSON, if this replaces its last reply. An interruption
        restores it.
    """

    def __init__(self, speaker: Speaker, chunks: ReplyStream, *, before: str | None = None) -> None:
        self.speaker = speaker
        self.error: GPROChatError | None = None
        self.stopped = False
        self._before = before
        self._chunks = chunks
        self._began = time.perf_counter()
        self._entered = False
        self._scope = anyio.CancelScope()
        self._text: list[str] = []
        self._news = anyio.Event()
        self._ended = False

    @property
    def elapsed(self) -> float:
        """Time since the question, in seconds."""
        return time.perf_counter() - self._began

    @property
    def keeps_earlier(self) -> bool:
        """True if this was stopped, so that the reply it would replace stays."""
        return self.stopped and self._before is not None

    async def run(self) -> None:
        """Receive the whole reply, and log the turn. Errors of the library go to `error`."""
        messages = self.speaker.conversation.messages
        asked = time.time()
        try:
            with self._scope:
                async with self._chunks as chunks:
                    self._entered = True
                    async for chunk in chunks:
                        self._text.append(chunk)
                        self._news.set()
        except GPROChatError as error:
            self.error = error
        finally:
            self._ended = True
            self._keep(messages, asked)
            self._news.set()

    async def more(self) -> str | None:
        """Wait for text, and return all that has arrived since the last call. None at the end.

        Cancellation loses no text.
        """
        await self._news.wait()
        text = "".join(self._text)
        self._text.clear()
        if self._ended:
            return text or None
        self._news = anyio.Event()
        return text

    def stop(self) -> None:
        """Stop the reply. The text received so far is kept."""
        self.stopped = not self._ended
        if self._entered:
            self._chunks.stop()
        else:
            self._scope.cancel()

    def _keep(self, before: tuple[Message, ...], asked: float) -> None:
        conversation = self.speaker.conversation
        messages = conversation.messages
        if messages is before:
            return
        site, timing = self.speaker.site, self._chunks.timing
        question, reply = (message.content for message in messages[-2:])
        turn = LoggedTurn(
            question,
            reply,
            site.name,
            site.url,
            asked,
            not self.stopped,
            timing.first_chunk,
            timing.total,
            site.model,
            conversation.system,
            UNDONE if self.keeps_earlier else None,
        )
        self.speaker.record(turn, replaces=self._before is not None and not self.stopped)
        if self._before is not None and self.stopped:
            self.speaker.restore(self._before)
