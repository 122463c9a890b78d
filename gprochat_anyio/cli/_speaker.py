"""One site in a chat, and its part of it."""

from __future__ import annotations

import time
from collections.abc import Iterable

import anyio

from gprochat_anyio import Client, Conversation, Fleet, GPROChatError, ReplyStream

from ._site import Site
from ._store import Kept, LoggedTurn


class Speaker:
    """A site that answers, with its own history.

    :param client: stays open, and is the caller's to close
    :param turns: what was said before
    :raises ValueError: if system is no text to be sent
    """

    def __init__(
        self,
        site: Site,
        client: Client | Fleet,
        turns: Iterable[LoggedTurn] = (),
        system: str | None = None,
    ) -> None:
        self.site = site
        self.client = client
        self.turns = list(turns)
        messages = [
            {"role": role, "parts": [{"text": text}]}
            for turn in self.turns
            for role, text in (("user", turn.question), ("model", turn.reply))
        ]
        self.conversation = Conversation.from_json(client, messages)
        self.conversation.system = system

    @property
    def kept(self) -> Kept:
        """What is to be kept of it."""
        site = self.site
        return Kept(site.name, site.url, self.conversation.system, tuple(self.turns), site.model)

    def loaded(self, data: bytes) -> Speaker:
        """The same site, going on with a conversation that was saved.

        :raises ValueError: if it can not be read
        """
        speaker = Speaker(self.site, self.client)
        speaker.conversation = Conversation.from_json(self.client, data)
        texts = [message.content for message in speaker.conversation.messages]
        speaker.turns = [LoggedTurn(*pair) for pair in zip(texts[::2], texts[1::2], strict=True)]
        return speaker

    @property
    def answered(self) -> str | None:
        """The last question that has an answer."""
        return self.turns[-1].question if self.turns else None

    def undo(self, question: str) -> None:
        """Forget the last turn, if that was its question; and a question without an answer."""
        if self.answered == question:
            del self.turns[-1]
            self.conversation.undo()
        else:
            self.conversation = Conversation.from_json(self.client, self.conversation.to_json())

    def ask(self, question: str) -> Answer:
        """An answer to come."""
        return Answer(self, self.conversation.stream(question))

    def retry(self, question: str) -> Answer:
        """Another answer to a question, in the place of the last one if that was to the same."""
        if self.answered == question:
            return Answer(self, self.conversation.retry())
        return self.ask(question)


class Answer:
    """A site's reply on its way: `run` receives it, `more` gives what has been received."""

    def __init__(self, speaker: Speaker, chunks: ReplyStream) -> None:
        self.speaker = speaker
        self.error: GPROChatError | None = None
        self.stopped = False
        self._chunks = chunks
        self._entered = False
        self._scope = anyio.CancelScope()
        self._text: list[str] = []
        self._news = anyio.Event()
        self._ended = False

    async def run(self) -> None:
        """Receive the reply to its end, and keep the turn. Raises nothing of the library's."""
        before = self.speaker.conversation.messages
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
            self._keep(before, asked)
            self._news.set()

    async def more(self) -> str | None:
        """The text since the last time, once there is some; None at the end."""
        await self._news.wait()
        text = "".join(self._text)
        self._text.clear()
        if self._ended:
            return text or None
        self._news = anyio.Event()
        return text

    def stop(self) -> None:
        """End it here; what has been received is kept."""
        self.stopped = not self._ended
        if self._entered:
            self._chunks.stop()
        else:
            self._scope.cancel()

    def _keep(self, before: object, asked: float) -> None:
        messages = self.speaker.conversation.messages
        if messages is before:
            return
        site, timing = self.speaker.site, self._chunks.timing
        question, reply = (message.content for message in messages[-2:])
        self.speaker.turns[len(messages) // 2 - 1 :] = [
            LoggedTurn(
                question,
                reply,
                site.name,
                site.url,
                asked,
                not self.stopped,
                timing.first_chunk,
                timing.total,
                site.model,
            )
        ]
