"""A reply while it arrives."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import anyio
from anyio.abc import ObjectSendStream

from gprochat_anyio._errors import ReplyInterruptedError, RequestTimeoutError
from gprochat_anyio._wire.text_decoder import ReplyDecoder
from gprochat_anyio.transport._failures import TransportFailure

from .deadlines import Clocks
from .observers import Watch
from .reply import Timing
from .sender import Answer


class LiveReply:
    """A reply whose first text has come. Pulled, not pushed: nothing runs in the background.

    :param answer: owned from here on
    :param clocks: of the request, running since it began
    :param decoder: of its body, fresh
    """

    __slots__ = (
        "_answer",
        "_chunks",
        "_decoder",
        "_end",
        "_failure",
        "_pieces",
        "_watch",
        "attempts",
        "characters",
        "clocks",
        "connect",
        "ended",
        "first_chunk",
    )

    def __init__(self, answer: Answer, clocks: Clocks, decoder: ReplyDecoder) -> None:
        self.clocks = clocks
        self.ended = False
        """Whether the reply is complete; its connection has been given back then."""
        self._answer = answer
        self._decoder = decoder
        self._failure: ReplyInterruptedError | RequestTimeoutError | None = None
        self._pieces: list[str] = []
        self._chunks = 0
        self.characters = 0
        """How many have been received."""
        self._end: float | None = None
        self._watch: Watch | None = None
        # what `Timing` says of the opening, set by it
        self.attempts, self.connect, self.first_chunk = 1, 0.0, 0.0

    @property
    def text(self) -> str:
        """All text received so far."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    @property
    def timing(self) -> Timing:
        """How the request went until now, or until it ended."""
        end = anyio.current_time() if self._end is None else self._end
        return Timing(
            connect=self.connect,
            first_chunk=self.first_chunk,
            total=end - self.clocks.began,
            chunks=self._chunks,
            characters=self.characters,
            attempts=self.attempts,
        )

    async def watch_from_here(self, watch: Watch) -> None:
        """Tell a watch that the first text has come, and in time how the reply ended."""
        self._watch = watch
        try:
            watch.first_text()
            if self.ended:
                self._tell()
        except BaseException:
            await self._close()
            raise

    @property
    def failed(self) -> bool:
        """Whether nothing more comes but text that was held back, and the error behind it."""
        return self._failure is not None

    async def next_text(self) -> str:
        """The next text, all of it that is ready; empty at the end of the reply.

        Cancelled, it loses nothing, and can be called again; but over a foreign transport the
        reply has broken off then. It runs on no clock: its caller starts `clocks`.

        :raises ReplyInterruptedError: if the reply broke off or is too large, once all text before
            that was given
        :raises RequestTimeoutError: after `time_out`, likewise
        """
        answer, decoder = self._answer, self._decoder
        while not self.ended and self._failure is None:
            try:
                pieces = await answer.receive()
            except TransportFailure as failure:
                self._break_off(str(failure))
                break
            text = decoder.feed(pieces, answer.open_chunk_size) if pieces else ""
            if answer.complete:
                decoder.finish()
                self.ended = decoder.failure is None
            if decoder.failure is not None:
                self._break_off(decoder.failure)
            text = text and self._taken(text)  # before anything that can be cancelled
            if self.ended:
                await self._close()
                self._tell()
                return text
            if self._failure is not None:
                await self._close()
            if text:
                return text
        if self._failure is None:
            return ""
        await self._close()
        if text := decoder.cut():
            return self._taken(text)
        self._failure.partial_text = self.text
        self._tell()
        raise self._failure

    async def receive(self) -> str:
        """The next text, under the clocks; empty at the end of the reply.

        No cancel scope stays open when it returns.

        :raises RequestTimeoutError: if `idle` or `total` ran out; the reply is closed then
        :raises ReplyInterruptedError: if the reply broke off
        """
        with self.clocks.enforced("idle"):
            return await self.next_text()
        await self.time_out()
        return await self.next_text()

    async def each(self, take: Callable[[str], bool]) -> str:
        """Receive to the end, under the clocks, in one cancel scope.

        :param take: is given each text as it arrives, and tells whether it had room for it
        :return: the text that there was no room for, empty at the end of the reply
        :raises RequestTimeoutError: if `idle` or `total` ran out; the reply is closed then
        :raises ReplyInterruptedError: if the reply broke off
        """
        clocks = self.clocks
        # what can not be taken up again must not be cancelled by a deadline that means nothing
        renew = clocks.renew if self._answer.resumable else partial(clocks.start, "idle")
        scope = clocks.enforced("idle")
        while True:
            with scope:
                while text := await self.next_text():
                    if not take(text):
                        break
                    renew()
                return text
            if clocks.ran_out():
                await self.time_out()
                break
            scope = clocks.enforced_again()
        while take(text := await self.next_text()):  # what is left, and then the error
            pass
        return text

    async def collect(self) -> None:
        """Receive to the end, under the clocks; closes the reply, whatever happens.

        :raises RequestTimeoutError: if `idle` or `total` ran out
        :raises ReplyInterruptedError: if the reply broke off
        """
        try:
            await self.each(_drop)
        finally:
            await self.aclose()

    async def forward(self, send: ObjectSendStream[str], started: Callable[[], None]) -> None:
        """Send all text into a channel as it arrives, under the clocks; closes the reply.

        Ends early if the channel's receiving end is closed. `idle` stands still while it is full.

        :param started: called before the first text is sent
        :raises RequestTimeoutError: if `idle` or `total` ran out
        :raises ReplyInterruptedError: if the reply broke off
        """
        send_nowait = getattr(send, "send_nowait", None)  # a memory object stream's

        def take(text: str) -> bool:
            if send_nowait is None:
                return False
            try:
                send_nowait(text)
            except (anyio.WouldBlock, NotImplementedError):  # the latter a stapled stream's
                return False
            return True

        try:
            text = self.text
            started()
            while text:
                with self.clocks.enforced() as scope:
                    await send.send(text)
                if scope.cancelled_caught:
                    raise await self.time_out()
                text = await self.each(take)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # the receiver has left
        finally:
            await self.aclose()

    async def time_out(self) -> RequestTimeoutError:
        """Close the reply because a clock ran out; that is the error which ends it from now on."""
        self._failure = error = self.clocks.timeout_error(self.text)
        await self._close()
        return error

    async def aclose(self) -> None:
        """Let the connection go: closed at once, without waiting for the peer, unless the reply
        is complete."""
        try:
            self._tell()
        finally:
            await self._close()

    async def _close(self) -> None:
        if self._end is None:
            self._end = anyio.current_time()
        await self._answer.aclose()

    def _tell(self) -> None:
        """Tell the watch how the reply ended, once."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.ended(self._failure, self.ended, self._chunks, self.characters)

    def _taken(self, text: str) -> str:
        self._pieces.append(text)
        self._chunks += 1
        self.characters += len(text)
        return text

    def _break_off(self, reason: str) -> None:
        if self._failure is None:  # a clock that ran out has closed the connection itself
            self._failure = ReplyInterruptedError(
                f"the reply broke off: {reason}; ask again, or go on from partial_text"
            )


def _drop(_: str) -> bool:
    return True
