"""A reply as it arrives, for callers without async."""

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
    """The text of a reply as it arrives, for `for`.

    ::

        with client.stream(prompt) as chunks:
            for chunk in chunks:
                ...

    Entering the block sends the request and waits for the first text. Leaving it, in whatever
    way, closes the connection before it returns, without waiting for the site. Failures are those
    of `ReplyStream`, raised at the same places.

    Without `with`, `for chunk in client.stream(prompt)` is such a block by itself: the request is
    sent as the loop begins, and the connection is closed as it ends, by itself, by a failure, or
    by Ctrl-C while it waits. Where the loop is *left*, by `break`, `return` or an exception in its
    body, it closes as the interpreter lets go of the loop's iterator: in CPython at once, unless
    the program has another reference to it (`chunks = iter(...)`). Elsewhere the garbage collector
    comes to it some day, or `client.close()`. So use `with` for a loop that may be left.

    Every wait ends promptly by Ctrl-C.
    """

    def __init__(self, loop: LoopThread, stream: ReplyStream, *, owner: object) -> None:
        self._loop = loop
        self._stream = stream
        self._owner = owner  # not to be garbage while its stream is in use
        self._leave: anyio.Event | None = None
        self._left: anyio.Event
        self._failed = False
        self._final: Reply | None = None

    def __enter__(self) -> Self:
        try:
            self._loop.run(self._enter)
        except BaseException:  # Ctrl-C may come just when it is entered
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
        # A generator that is closed was left by `break`, for all that it can tell.
        self._failed = exc_type is not None and exc_type is not GeneratorExit
        self.close()

    def __iter__(self) -> Iterator[str]:
        return self._whole() if self._leave is None else self._pieces()

    @property
    def text(self) -> str:
        """All text handed over so far, also after a failure."""
        return self._final.text if self._final else self._loop.run(self._text)

    @property
    def timing(self) -> Timing:
        """How the request went until now, or until it ended."""
        return self._state.timing

    @property
    def finish_reason(self) -> str | None:
        """The reason why the reply ended; see `Reply.finish_reason`. None before the end."""
        return self._state.finish_reason

    @property
    def usage(self) -> Usage | None:
        """The tokens that the reply took; None before the end, and if the API does not say."""
        return self._state.usage

    def read(self) -> str:
        """The rest of the text, to the end of the reply.

        :raises RequestTimeoutError: if `idle` or `total` ran out
        :raises ReplyInterruptedError: if the reply broke off; its `partial_text` has all of it
        """
        return "".join(self)

    def stop(self) -> None:
        """End the reply, from any thread, or a signal's handler: the loop just ends.

        :raises RuntimeError: if the client is closed
        """
        self._loop.run(self._stop)

    def close(self) -> None:
        """Close the connection, and wait for that; from any thread."""
        if self._leave is None or self._final is not None:
            return
        if self._loop.in_its_thread():  # it is the garbage collector that closes
            self._leave.set()
            return
        with suppress(self._loop.Unusable):  # it is closed by that already, or is the parent's
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
        """The stream's block: it is entered and left by this task."""
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
    """Stands for what the caller's own block raised."""
