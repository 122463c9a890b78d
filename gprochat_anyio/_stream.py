"""The streaming phase: a pump task moves text into a memory object channel that the caller reads.

The pump lives exactly as long as the caller's block. It runs in a shielded scope, so the caller's
cancellation reaches it through the block's end and by no other way, and it hands its failure
over in order, behind the text: nothing but the caller's own exceptions passes the task group.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio
from anyio.abc import ObjectReceiveStream, TaskGroup
from anyio.lowlevel import checkpoint

from ._home import Home
from ._opening import clean
from ._reply import LiveReply, Timing

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

BUFFERED_PIECES = 8
"""How many pieces of text, each of at most one read of 64 KiB, wait for a slow caller. Beyond
that the socket is not read, and TCP slows the site down."""


class ReplyStream(ObjectReceiveStream[str]):
    """The text of a reply as it arrives: `async with client.stream(prompt) as chunks`.

    Entering the block sends the request and waits for the first text; whatever goes wrong before
    that is raised there. Iterate for the pieces, which are never empty and whose borders mean
    nothing. A failure after the first text is raised by the iteration, behind every piece that
    came before it. Leaving the block, in whatever way, closes the connection without waiting for
    the site; an exception or a cancellation of the block's own leaves it as it is.

    A caller that stops reading stops the site: at most 9 pieces of 64 KiB wait here, one of them in
    the pump's hands.
    """

    def __init__(self, open_reply: Callable[[], Awaitable[LiveReply]]) -> None:
        self._open_reply: Callable[[], Awaitable[LiveReply]] | None = open_reply
        self._live: LiveReply | None = None
        self._given = 0  # characters handed to the caller
        self._failure: Exception | None = None
        self._channel: MemoryObjectReceiveStream[str] | None = None
        self._tasks: TaskGroup | None = None
        self._owner = 0
        self._guard = anyio.ResourceGuard("receiving from")
        self._home = Home("ReplyStream")
        self._next_piece = ""  # taken out of the channel, and not yet given
        self._arrived: anyio.Event | None = None  # set by the pump for the caller that waits
        self._ended = True  # whether nothing more will come through the channel
        self._stopped = self._closed = False

    async def __aenter__(self) -> Self:
        if self._open_reply is None:
            raise RuntimeError("a ReplyStream is entered once; call client.stream() for another")
        open_reply, self._open_reply = self._open_reply, None
        self._home.check()
        self._live = live = await open_reply()
        if not live.ended:
            self._owner = anyio.get_current_task().id
            self._ended = False
            send, self._channel = anyio.create_memory_object_stream[str](BUFFERED_PIECES)
            send.send_nowait(live.text)
            self._tasks = await anyio.create_task_group().__aenter__()
            self._tasks.start_soon(self._pump, live, send, name="gprochat_anyio pump")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        tasks = self._tasks
        if tasks is not None and anyio.get_current_task().id != self._owner:
            raise RuntimeError(
                "a ReplyStream's block must be left by the task that entered it; to end it from "
                "another, call stop()"
            )
        try:
            await self.aclose()
        finally:
            if tasks is not None:
                self._tasks = None
                # The pump is cancelled and waits for nobody, so this is short. What the block
                # raised is kept out of the group, which would wrap it.
                tasks.cancel_scope.shield = True
                try:
                    await tasks.__aexit__(None, None, None)
                except BaseExceptionGroup as group:  # Ctrl-C, which hit the pump
                    raise group.exceptions[0] from None
                finally:
                    assert self._channel is not None
                    self._channel.close()

    @property
    def text(self) -> str:
        """All text handed over so far, also after a failure."""
        return self._reply.text[: self._given]

    @property
    def timing(self) -> Timing:
        """How the request went until now, or until it ended."""
        return self._reply.timing

    async def receive(self) -> str:
        """The next piece of text. Always a checkpoint; cancelled, it loses nothing.

        :raises anyio.EndOfStream: at the end of the reply, or once it was stopped
        :raises anyio.ClosedResourceError: if it was closed
        :raises anyio.BusyResourceError: if another task is receiving
        :raises RequestTimeoutError: if `idle` or `total` ran out
        :raises ReplyInterruptedError: if the reply broke off
        """
        live = self._reply
        with self._guard:
            self._home.check()
            piece = await self._next()
            if self._closed:
                raise anyio.ClosedResourceError("this ReplyStream is closed; its text is kept")
            if self._stopped:
                raise anyio.EndOfStream
            if not piece:  # the pump is gone: what is left is what it found no room for
                piece = live.text[self._given :]
            self._given += len(piece)
        if piece:
            return piece
        if self._failure is not None:
            raise clean(self._failure)
        raise anyio.EndOfStream

    async def read(self) -> str:
        """The rest of the text, to the end of the reply.

        :raises RequestTimeoutError: if `idle` or `total` ran out
        :raises ReplyInterruptedError: if the reply broke off; its `partial_text` has all of it
        """
        return "".join([piece async for piece in self])

    def stop(self) -> None:
        """End the reply, from any task of the event loop: the iteration just ends. What the caller
        has not been given by then is dropped, and the connection closed."""
        self._stopped = True
        if self._tasks is not None:
            self._reply.clocks.cancel()

    async def aclose(self) -> None:
        """Close the connection at once, from any task of the event loop. A task that is receiving
        gets `anyio.ClosedResourceError`."""
        self._closed = True
        if self._live is not None:
            if self._tasks is not None:
                self._live.clocks.cancel()
            await self._live.aclose()

    @property
    def _reply(self) -> LiveReply:
        if self._live is None:
            raise RuntimeError("a ReplyStream is entered first: async with client.stream(...)")
        return self._live

    async def _next(self) -> str:
        """The next piece from the channel, empty at its end. One checkpoint, and no more: the
        channel's own `receive` begins with one, even where it then has to wait."""
        if not (self._next_piece or self._take()):
            while not (self._stopped or self._closed or self._ended):
                self._arrived = arrived = anyio.Event()
                await arrived.wait()
                if self._take():
                    return self._give()
        await checkpoint()
        return self._give()

    def _give(self) -> str:
        piece, self._next_piece = self._next_piece, ""
        return piece

    def _take(self) -> bool:
        """Take the next piece out of the channel, if there is one."""
        if self._channel is None:
            return False
        try:
            self._next_piece = self._channel.receive_nowait()
        except (anyio.WouldBlock, anyio.EndOfStream):
            return False
        return True

    async def _pump(self, live: LiveReply, send: MemoryObjectSendStream[str]) -> None:
        clocks = live.clocks
        with send:
            with clocks.enforced(shield=True) as scope:
                if self._stopped or self._closed:
                    scope.cancel()
                try:
                    while True:
                        clocks.start("idle")
                        text = await live.next_text()
                        if not text:
                            break
                        try:
                            send.send_nowait(text)
                        except anyio.WouldBlock:
                            clocks.pause()
                            await send.send(text)
                        else:
                            self._wake()
                except Exception as error:  # noqa: BLE001 - the caller's iteration raises it
                    self._failure = error
                finally:
                    await live.aclose()
            if scope.cancelled_caught:
                self._failure = clocks.timeout_error(live.text)
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        """Let the caller look again, if it waits."""
        if self._arrived is not None:
            self._arrived.set()
