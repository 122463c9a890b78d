"""The streaming phase: the reactor feeds a memory object channel, the caller receives from it."""

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

_NOT_ENTERED = "a ReplyStream is entered first: async with client.stream(...)"

OpenReply = Callable[[], Awaitable[tuple[IncomingReply, ChannelSink]]]
"""Opens a reply, and gives it with the channel that it feeds."""


async def open_channel(
    opener: Opener, request: PreparedRequest | InvalidPromptError
) -> tuple[IncomingReply, ChannelSink]:
    """Open a request whose reply feeds a memory object channel.

    :raises GPROChatError: If there is no first text.
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
    """Close what a stream had that was dropped within its block."""
    try:
        reply.end()
    except Exception:  # noqa: BLE001 - an observer's; the event loop calls this
        _log.exception("an observer failed when a dropped ReplyStream ended")
    finally:
        sink.close()


class ReplyStream(ObjectReceiveStream[str]):
    """The text of a reply as it arrives: `async with client.stream(prompt) as chunks`.

    Entering the block sends the request and waits for the first text; whatever goes wrong before
    that is raised there. Iterate for the pieces, which are never empty and whose borders mean
    nothing. They come over a memory object channel, which the event loop's reactor feeds. A failure
    after the first text is raised by the iteration, behind every piece that came before it, and
    again by every further one.

    Iterating is a checkpoint where it waits; between pieces that had arrived already it only looks
    for a cancellation. `receive` is always a checkpoint.

    Leaving the block, in whatever way, closes the connection at once, without waiting for the site;
    an exception or a cancellation of the block's own leaves it as it is. No task, task group or
    cancel scope belongs to the block, so any task may leave it or close it, in any order.

    A caller that stops reading stops the site: with 64 KiB of text waiting in the channel, nothing
    more is read from the connection.
    """

    def __init__(self, open_reply: OpenReply) -> None:
        self._open_reply: OpenReply | None = open_reply
        self._reply: IncomingReply | None = None
        self._sink: ChannelSink | None = None
        self._taken = TextBuffer()
        self._is_receiving = self._stopped = self._closed = False

    async def __aenter__(self) -> Self:
        if self._open_reply is None:
            raise RuntimeError("a ReplyStream is entered once; call client.stream() for another")
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
        finally:  # the warning may be an error
            assert self._sink is not None
            reply.affinity.call_soon(partial(_end_dropped, reply, self._sink))

    @property
    def text(self) -> str:
        """All text handed over so far, also after a failure: none, if that was on entering."""
        if self._open_reply is not None:
            raise RuntimeError(_NOT_ENTERED)
        return self._taken.text

    @property
    def timing(self) -> Timing:
        """How the request went until now, or until it ended."""
        return self._entered.timing

    @property
    def finish_reason(self) -> str | None:
        """The reason why the reply ended: `"stop"`, `"length"` at a limit of tokens, or another of
        the API's words. None before the end, and if the API does not say, as GPROChat's."""
        return self._entered.finish_reason

    @property
    def usage(self) -> Usage | None:
        """The tokens that the reply took; None before the end, and if the API does not say."""
        return self._entered.usage

    def statistics(self) -> MemoryObjectStreamStatistics:
        """Return the channel's statistics, as AnyIO defines them.

        An item is a piece of text of any length; the bound is 64 KiB of text, not a number.
        """
        if self._sink is None:
            raise RuntimeError(_NOT_ENTERED)
        return self._sink.receive_stream.statistics()._replace(
            tasks_waiting_receive=int(self._is_receiving)
        )

    def receive_nowait(self) -> str:
        """Return the next piece of text, if it has arrived.

        :raises anyio.WouldBlock: If nothing has.
        :raises anyio.EndOfStream: At the end of the reply, or once it was stopped.
        :raises anyio.ClosedResourceError: If it was closed.
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
        """Return the next piece of text. Always a checkpoint; cancelled, it loses nothing.

        :raises anyio.EndOfStream: At the end of the reply, or once it was stopped.
        :raises anyio.ClosedResourceError: If it was closed.
        :raises anyio.BusyResourceError: If another task is receiving.
        :raises RequestTimeoutError: If `idle` or `total` ran out.
        :raises ReplyInterruptedError: If the reply broke off.
        """
        await self._wait(yields=True)
        return self.receive_nowait()

    async def __anext__(self) -> str:
        """Return the next piece of text, for `async for`: as `receive`, but it gives other tasks
        their turn only once it has returned all that had arrived."""
        await self._wait(yields=False)
        try:
            return self.receive_nowait()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def _wait(self, *, yields: bool) -> None:
        """Wait until something has arrived, or the end.

        :param yields: True to let the event loop have a turn, even if something has
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
        """Return the rest of the text, to the end of the reply.

        :raises RequestTimeoutError: If `idle` or `total` ran out.
        :raises ReplyInterruptedError: If the reply broke off; its `partial_text` has all of it.
        """
        return "".join([piece async for piece in self])

    def stop(self) -> None:
        """End the reply, from any task or callback of the event loop: the iteration just ends.

        The connection is closed when this returns, or if another task is entering the block, as it
        has entered. Text that the caller has not received by then is dropped.

        :raises RuntimeError: From another thread.
        """
        self._check_thread()
        self._stopped = True
        if self._reply is not None:
            self._reply.end()

    async def aclose(self) -> None:
        """Close the connection at once, from any task of the event loop.

        A task that is receiving gets `anyio.ClosedResourceError`. One that is entering the block
        gets it as the first text arrives, and the connection is closed then.

        :raises RuntimeError: From another thread.
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
        finally:  # an observer may raise
            if self._sink is not None:
                self._sink.close()

    @property
    def _entered(self) -> IncomingReply:
        if self._reply is None:
            raise RuntimeError(_NOT_ENTERED)
        return self._reply
