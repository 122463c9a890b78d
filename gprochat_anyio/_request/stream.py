"""The streaming phase: the caller's own task pulls the text from the connection.

What the caller does not ask for stays in the kernel's buffers, and TCP slows the site down. The
first reads have a cancel scope each, which costs as much as the read does. From then on a task
beside the caller watches the clocks; when one runs out it closes the connection, which wakes the
caller.
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import ObjectReceiveStream, TaskGroup
from anyio.lowlevel import checkpoint

from gprochat_anyio._redaction import strip_traceback

from .background_tasks import leave
from .incoming import LiveReply
from .loop_affinity import LoopAffinity
from .reply import Timing

_READS_IN_SCOPES = 2  # starting a task costs as much as five scopes: not for a reply that is short


class ReplyStream(ObjectReceiveStream[str]):
    """The text of a reply as it arrives: `async with client.stream(prompt) as chunks`.

    Entering the block sends the request and waits for the first text; whatever goes wrong before
    that is raised there. Iterate for the pieces, which are never empty and whose borders mean
    nothing. A failure after the first text is raised by the iteration, behind every piece that
    came before it, and again by every further one. Leaving the block, in whatever way, closes the
    connection without waiting for the site; an exception or a cancellation of the block's own
    leaves it as it is.

    A caller that stops reading stops the site: no more than one read of 64 KiB waits here.
    """

    def __init__(self, open_reply: Callable[[], Awaitable[LiveReply]]) -> None:
        self._open_reply: Callable[[], Awaitable[LiveReply]] | None = open_reply
        self._live: LiveReply | None = None
        self._reads = 0
        self._given = 0  # characters handed to the caller
        self._failure: Exception | None = None
        self._tasks: TaskGroup | None = None
        self._watching: anyio.CancelScope | None = None
        self._owner = 0
        self._guard = anyio.ResourceGuard("receiving from")
        self._home = LoopAffinity("ReplyStream")
        self._stopped = self._closed = False
        self._closing: object = None  # asyncio keeps no task alive by itself

    async def __aenter__(self) -> Self:
        if self._open_reply is None:
            raise RuntimeError("a ReplyStream is entered once; call client.stream() for another")
        open_reply, self._open_reply = self._open_reply, None
        self._home.check()
        self._live = live = await open_reply()
        if not live.ended:
            self._owner = anyio.get_current_task().id
            self._tasks = await anyio.create_task_group().__aenter__()
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
                if self._watching is not None:  # not the group: this task would be cancelled, too
                    self._watching.cancel()
                await leave(tasks)

    def __del__(self) -> None:
        if self._tasks is not None:
            warnings.warn(
                "a ReplyStream was dropped within its block, with its connection open: use "
                "`async with client.stream(...)`, which closes it",
                ResourceWarning,
                stacklevel=1,
                source=self,
            )

    @property
    def text(self) -> str:
        """All text handed over so far, also after a failure: none, if that was on entering."""
        return self._reply.text[: self._given] if self._live or self._open_reply else ""

    @property
    def timing(self) -> Timing:
        """How the request went until now, or until it ended."""
        return self._reply.timing

    async def receive(self) -> str:
        """The next piece of text. Always a checkpoint; cancelled, it loses nothing, unless a
        transport of httpx's brings the text: then the reply has broken off.

        :raises anyio.EndOfStream: at the end of the reply, or once it was stopped
        :raises anyio.ClosedResourceError: if it was closed
        :raises anyio.BusyResourceError: if another task is receiving
        :raises RequestTimeoutError: if `idle` or `total` ran out
        :raises ReplyInterruptedError: if the reply broke off
        """
        live = self._reply
        with self._guard:
            self._home.check()
            piece = await self._next(live)
            if self._closed:
                raise anyio.ClosedResourceError("this ReplyStream is closed; its text is kept")
            if self._stopped:
                raise anyio.EndOfStream
            self._given += len(piece)
        if piece:
            return piece
        if self._failure is not None:
            raise strip_traceback(self._failure)
        raise anyio.EndOfStream

    async def read(self) -> str:
        """The rest of the text, to the end of the reply.

        :raises RequestTimeoutError: if `idle` or `total` ran out
        :raises ReplyInterruptedError: if the reply broke off; its `partial_text` has all of it
        """
        return "".join([piece async for piece in self])

    def stop(self) -> None:
        """End the reply, from any task or callback of the event loop: the iteration just ends.
        What the caller has not been given by then is dropped, and the connection closed.

        :raises RuntimeError: from another thread
        """
        if self._tasks is not None:
            self._home.check_thread()
        self._stopped = True
        if self._tasks is not None:
            loop = self._home.callback_loop()
            if loop is None:
                self._tasks.start_soon(self._reply.aclose)
            else:
                self._closing = loop.create_task(self._reply.aclose())

    async def aclose(self) -> None:
        """Close the connection at once, from any task of the event loop. A task that is receiving
        gets `anyio.ClosedResourceError`."""
        self._closed = True
        if self._live is not None:
            await self._live.aclose()

    @property
    def _reply(self) -> LiveReply:
        if self._live is None:
            raise RuntimeError("a ReplyStream is entered first: async with client.stream(...)")
        return self._live

    async def _next(self, live: LiveReply) -> str:
        """The next piece: what is there already (the first text, or what a cancelled call had
        received), what follows it, nothing at the end. One checkpoint."""
        there = self._given < live.characters
        if there or self._stopped or self._closed or self._failure or live.ended:
            await checkpoint()
            return live.text[self._given :] if there else ""
        self._reads += 1
        try:
            if live.failed:
                await checkpoint()
            if self._reads <= _READS_IN_SCOPES:
                return await live.receive()
            if self._reads == _READS_IN_SCOPES + 1:
                assert self._tasks is not None
                live.clocks.pause("idle")
                self._watching = anyio.CancelScope()
                self._tasks.start_soon(_watch, live, self._watching, name="gprochat_anyio clocks")
            live.clocks.renew()
            return await live.next_text()
        except Exception as error:  # noqa: BLE001 - it is raised behind the text
            self._failure = error
            return ""
        finally:
            live.clocks.pause("idle")


async def _watch(live: LiveReply, scope: anyio.CancelScope) -> None:
    with scope:
        await live.clocks.watch()
        await live.time_out()
