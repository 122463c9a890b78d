"""Synchronous streams of replies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio
from anyio.abc import TaskStatus

from gprochat_anyio._request.reply import Reply, Timing
from gprochat_anyio._request.stream import ReplyStream
from gprochat_anyio._wire.usage import Usage

if TYPE_CHECKING:
    from .loop_thread import LoopThread


class SyncReplyStream:
    """The text of a reply as it arrives, for synchronous iteration.

    ::

        with client.stream(prompt) as chunks:
            for chunk in chunks:
                ...

    Entering the block sends the request and waits for the first text. Leaving it closes the
    connection, without waiting for the site. Errors are raised as by `ReplyStream`.

    `for chunk in client.stream(prompt)` is such a block by itself: the request is sent when the
    loop begins, and the connection is closed when the loop ends, fails, or is interrupted by Ctrl-C
    while it waits. If the loop is left early, by `break`, `return` or an exception in its body, the
    connection is closed when the loop's iterator is deallocated. In CPython, that is immediately,
    unless there is another reference to it (`chunks = iter(...)`). Other interpreters leave it to
    the garbage collector or `client.close()`. Use `with` for a loop that may be left early.

    Ctrl-C promptly interrupts every wait.
    """

    def __init__(self, loop: LoopThread, stream: ReplyStream, *, owner: object) -> None:
        self._loop = loop
        self._stream = stream
        self._owner = owner  # keeps the client alive while its stream is in use
        self._leave: anyio.Event | None = None
        self._left: anyio.Event
        self._failed = False
        self._final: Reply | None = None

    def __enter__(self) -> Self:
        try:
            self._loop.run(self._enter)
        except BaseException:  # Ctrl-C may arrive when the block has just been entered
            self._failed = True
            self.close()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        # A closed generator cannot be told from one left by `break`.
        self._failed = exc_type is not None and exc_type is not GeneratorExit
        self.close()

    def __iter__(self) -> Iterator[str]:
        return self._whole() if self._leave is None else self._pieces()

    @property
    def text(self) -> str:
        """All text received from the stream so far, also after a failure."""
        return self._final.text if self._final else self._loop.run(self._text)

    @property
    def timing(self) -> Timing:
        """Durations and counts of the request, up to its end or now."""
        return self._state.timing

    @property
    def finish_reason(self) -> str | None:
        """The finish reason; see `Reply.finish_reason`. `None` before the end."""
        return self._state.finish_reason

    @property
    def usage(self) -> Usage | None:
        """The token counts. `None` before the end, and if the API does not report them."""
        return self._state.usage

    def read(self) -> str:
        """Return the rest of the text, up to the end of the reply.

        :raises RequestTimeoutError: If `idle` or `total` has passed.
        :raises ReplyInterruptedError: If the reply ended early. Its `partial_text` has all text.
        """
        return "".join(self)

    def stop(self) -> None:
        """Stop the reply. The iteration then ends normally. Call this in any thread or signal
        handler.

        :raises RuntimeError: If the client is closed.
        """
        self._loop.run(self._stop)

    def close(self) -> None:
        """Close the connection, and wait until it is closed. Call this in any thread."""
        if self._leave is None or self._final is not None:
            return
        if self._loop.in_its_thread():  # called by the garbage collector
            self._leave.set()
            return
        with suppress(self._loop.Unusable):  # then it is closed already, or belongs to the parent
            self._loop.run(self._close)

    def _whole(self) -> Iterator[str]:
        with self:
            yield from self._pieces()

    def _pieces(self) -> Iterator[str]:
        while (piece := self._loop.run(self._next)) is not None:
            yield piece

    async def _enter(self) -> None:
        await self._loop.tasks.start(self._hold)

    async def _hold(self, *, task_status: TaskStatus[None]) -> None:
        """Enter the stream's block, and leave it in the same task."""
        left = anyio.Event()
        try:
            with suppress(_BodyFailedError):
                async with self._stream:
                    self._leave, self._left = anyio.Event(), left
                    task_status.started()
                    await self._leave.wait()
                    self._check_body()
        finally:
            if self._leave is not None:
                self._final = await self._look()
            left.set()

    def _check_body(self) -> None:
        if self._failed:
            raise _BodyFailedError

    async def _next(self) -> str | None:
        try:
            return await self._stream.receive()
        except anyio.EndOfStream:
            return None

    async def _stop(self) -> None:
        self._stream.stop()

    async def _text(self) -> str:
        return self._stream.text

    @property
    def _state(self) -> Reply:
        return self._final or self._loop.run(self._look)

    async def _look(self) -> Reply:
        stream = self._stream
        return Reply(stream.text, stream.timing, stream.finish_reason, stream.usage)

    async def _close(self) -> None:
        assert self._leave is not None
        self._leave.set()
        await self._left.wait()


class _BodyFailedError(Exception):
    """Represents an exception of the caller's block."""
