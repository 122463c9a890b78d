"""The streaming phase: the caller receives from a memory object channel that the reactor feeds."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import ObjectReceiveStream
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectStreamStatistics

from gprochat_anyio._errors import InvalidPromptError
from gprochat_anyio._wire.usage import Usage

from .incoming import IncomingReply
from .opener import Opener, PreparedRequest
from .reply import Timing
from .sinks import ChannelSink, TextBuffer, size_of

_log = logging.getLogger("gprochat_anyio")

_NOT_ENTERED = "a ReplyStream must be entered first: async with client.stream(...)"

OpenReply = Callable[[], Awaitable[tuple[IncomingReply, ChannelSink]]]
"""A function that opens a reply, and returns it with the channel that it feeds."""


async def open_channel(
    opener: Opener, request: PreparedRequest | InvalidPromptError
) -> tuple[IncomingReply, ChannelSink]:
    """Open a request whose reply feeds a memory object channel.

    :raises GPROChatError: If the request fails before the first text.
    """
    if isinstance(request, InvalidPromptError):
        raise request
    sink = ChannelSink()
    try:
        return await opener.open(request, sink), sink
    except BaseException:
        sink.close()
        raise


def _end_dropped(reply: IncomingReply, sink: ChannelSink) -> None:
    """Close the reply and the channel of a stream that was dropped within its block."""
    try:
        reply.end()
    except Exception:  # noqa: BLE001 - an observer's; the event loop calls this
        _log.exception("an observer failed when a dropped ReplyStream ended")
    finally:
        sink.close()


class ReplyStream(ObjectReceiveStream[str]):
    """The text of a reply as it arrives: `async with client.stream(prompt) as chunks`.

    Entering the block sends the request and waits for the first text. Failures before that are
    raised there. Iterate over the stream for the pieces of text, which are never empty and whose
    boundaries have no meaning. They arrive through a memory object channel, which the event loop's
    reactor feeds. A failure after the first text is raised by the iteration, after all text that
    came before it, and again by every later iteration.

    Iteration is a checkpoint if it waits. Between pieces that have already arrived, it only checks
    for cancellation. `receive` is always a checkpoint.

    Leaving the block closes the connection immediately, without waiting for the site. The block's
    own exceptions and cancellations propagate unchanged. The block holds no task, task group or
    cancel scope open, so any task may leave or close it, in any order.

    A slow consumer slows the site down: while 64 KiB of text are waiting in the channel, nothing is
    read from the connection.
    """

    def __init__(self, open_reply: OpenReply) -> None:
        self._open_reply: OpenReply | None = open_reply
        self._reply: IncomingReply | None = None
        self._sink: ChannelSink | None = None
        self._taken = TextBuffer()
        self._is_receiving = self._stopped = self._closed = False

    async def __aenter__(self) -> Self:
        if self._open_reply is None:
            raise RuntimeError(
                "a ReplyStream can only be entered once; call client.stream() for another"
            )
        open_reply, self._open_reply = self._open_reply, None
        self._reply, self._sink = await open_reply()
        if self._closed:
            self._close()
            await self._reply.wait_closed()
            raise anyio.ClosedResourceError("this ReplyStream was closed while it was entered")
        if self._stopped:
            self._reply.end()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self._close()
        if self._reply is not None:
            await self._reply.wait_closed()

    def __del__(self) -> None:
        reply = getattr(self, "_reply", None)
        if reply is None or self._closed:
            return
        try:
            if not reply.over:
                warnings.warn(
                    "a ReplyStream was dropped within its block, with its connection open: use "
                    "`async with client.stream(...)`, which closes it",
                    ResourceWarning,
                    stacklevel=1,
                    source=self,
                )
        finally:  # warnings may be errors
            assert self._sink is not None
            reply.affinity.call_soon(partial(_end_dropped, reply, self._sink))

    @property
    def text(self) -> str:
        """All text received from the stream so far, also after a failure. Empty if entering
        failed."""
        if self._open_reply is not None:
            raise RuntimeError(_NOT_ENTERED)
        return self._taken.text

    @property
    def timing(self) -> Timing:
        """Durations and counts of the request, up to its end or now."""
        return self._entered.timing

    @property
    def finish_reason(self) -> str | None:
        """The finish reason: `"stop"`, `"length"` for a token limit, or another of the API's names.
        `None` before the end, and if the API does not report one, such as GPROChat's."""
        return self._entered.finish_reason

    @property
    def usage(self) -> Usage | None:
        """The token counts. `None` before the end, and if the API does not report them."""
        return self._entered.usage

    def statistics(self) -> MemoryObjectStreamStatistics:
        """Return the channel's statistics, as AnyIO defines them.

        An item is a piece of text of any length. The buffer's limit is 64 KiB of text, not a number
        of items.
        """
        if self._sink is None:
            raise RuntimeError(_NOT_ENTERED)
        return self._sink.receive_stream.statistics()._replace(
            tasks_waiting_receive=int(self._is_receiving)
        )

    def receive_nowait(self) -> str:
        """Return the next piece of text, if it has arrived.

        :raises anyio.WouldBlock: If no text has arrived.
        :raises anyio.EndOfStream: If the reply has ended or was stopped.
        :raises anyio.ClosedResourceError: If the stream was closed.
        :raises GPROChatError: As `receive` does.
        """
        reply = self._entered
        self._check_thread()
        if self._closed:
            raise anyio.ClosedResourceError("this ReplyStream is closed; its text is kept")
        if self._stopped:
            raise anyio.EndOfStream
        assert self._sink is not None
        try:
            piece = self._sink.take()
        except anyio.EndOfStream:
            pass
        else:
            self._taken.append(piece)
            reply.taken(size_of(piece))
            return piece
        reply.raise_error(self._taken.text)
        raise anyio.EndOfStream

    async def receive(self) -> str:
        """Return the next piece of text. This is always a checkpoint. Cancellation loses no text.

        :raises anyio.EndOfStream: If the reply has ended or was stopped.
        :raises anyio.ClosedResourceError: If the stream was closed.
        :raises anyio.BusyResourceError: If another task is receiving.
        :raises RequestTimeoutError: If `idle` or `total` has passed.
        :raises ReplyInterruptedError: If the reply ended early.
        """
        await self._wait(yields=True)
        return self.receive_nowait()

    async def __anext__(self) -> str:
        """Return the next piece of text, for `async for`.

        Unlike `receive`, this lets other tasks run only after all text that has arrived.
        """
        await self._wait(yields=False)
        try:
            return self.receive_nowait()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def _wait(self, *, yields: bool) -> None:
        """Wait until text has arrived, or for the end.

        :param yields: Let other tasks run, even if text has arrived.
        """
        reply = self._entered
        if self._is_receiving:
            raise anyio.BusyResourceError("receiving from")
        loop = reply.affinity.check()
        self._is_receiving = True
        try:
            if yields and reply.has_pending:
                await loop.checkpoint()
            elif reply.has_pending or reply.over:
                await loop.checkpoint_if_cancelled()
            while not (reply.has_pending or reply.over):
                await reply.wait()
        finally:
            self._is_receiving = False

    async def read(self) -> str:
        """Return the rest of the text, up to the end of the reply.

        :raises RequestTimeoutError: If `idle` or `total` has passed.
        :raises ReplyInterruptedError: If the reply ended early. Its `partial_text` has all text.
        """
        return "".join([piece async for piece in self])

    def stop(self) -> None:
        """Stop the reply. The iteration then ends normally.

        Call this in any task or callback of the event loop. When it returns, the connection is
        closed; if another task is entering the block, it is closed once that task has entered. Text
        that has not been received by then is dropped.

        :raises RuntimeError: If called in another thread.
        """
        self._check_thread()
        self._stopped = True
        if self._reply is not None:
            self._reply.end()

    async def aclose(self) -> None:
        """Close the connection immediately. Call this in any task of the event loop.

        A task that is receiving gets `anyio.ClosedResourceError`. A task that is entering the block
        gets it when the first text arrives, and the connection is closed then.

        :raises RuntimeError: If called in another thread.
        """
        self._close()
        if self._reply is not None:
            await self._reply.wait_closed()
        await checkpoint()

    def _check_thread(self) -> None:
        if self._reply is not None and not self._reply.over:
            self._reply.affinity.check_thread()

    def _close(self) -> None:
        self._check_thread()
        self._closed = True
        try:
            if self._reply is not None:
                self._reply.end()
        finally:  # observers may raise
            if self._sink is not None:
                self._sink.close()

    @property
    def _entered(self) -> IncomingReply:
        if self._reply is None:
            raise RuntimeError(_NOT_ENTERED)
        return self._reply
