"""The stream of a fan-out's results."""

from __future__ import annotations

from types import TracebackType
from typing import Generic, Self, TypeVar

import anyio
from anyio.abc import ObjectReceiveStream
from anyio.lowlevel import checkpoint

from gprochat_anyio._request.loop_affinity import LoopAffinity

from .bare_task_group import BareTaskGroup
from .outcomes import Chunk
from .scheduler import Scheduler

_Item = TypeVar("_Item")


class Results(ObjectReceiveStream[_Item], Generic[_Item]):
    """The results of a fan-out as they arrive: `async with ... as results`, then iterate.

    Entering the block starts the requests. Leaving it cancels the running requests and closes their
    connections. The block's own exceptions and cancellations propagate unchanged. Cancelling the
    caller cancels the requests as well.
    """

    def __init__(self, scheduler: Scheduler[_Item]) -> None:
        self._scheduler = scheduler
        self._channel = scheduler.channel
        self._guard = anyio.ResourceGuard("receiving from")
        self._affinity = LoopAffinity("fan-out")
        self._tasks: BareTaskGroup | None = None
        self._owner = 0
        self._without_turn = 0  # results taken since other tasks last ran
        self._closed = False

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise RuntimeError("a fan-out can only be entered once; call the function for another")
        self._affinity.check()
        await checkpoint()
        self._owner = anyio.get_current_task().id
        self._tasks = BareTaskGroup()
        tasks = await self._tasks.__aenter__()
        self._channel.open()
        tasks.start_soon(self._scheduler.run, name="gprochat_anyio fan-out")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        assert self._tasks is not None
        self._closed = True
        left_early = not (self._scheduler.is_complete or self._scheduler.failure)
        self._scheduler.cancel()
        if anyio.get_current_task().id != self._owner:
            raise RuntimeError(
                "the block must be left by the task that entered it; to end it from another, "
                "call aclose()"
            )
        try:
            await self._tasks.__aexit__(exc_type, exc_val, exc_tb)
        finally:
            self._channel.close()
        if left_early and exc_val is None and self._scheduler.failure is not None:
            raise self._scheduler.failure

    async def receive(self) -> _Item:
        """Return the next result. This is always a checkpoint. Cancellation loses no result.

        :raises anyio.EndOfStream: After the last result.
        :raises anyio.ClosedResourceError: If the fan-out was closed, or its block has ended.
        :raises anyio.BusyResourceError: If another task is receiving.
        :raises anyio.BrokenResourceError: If a scope around the block has cancelled the requests,
            and this task is shielded from it.
        :raises Exception: The exception that ended the fan-out, after all earlier results. With
            `on_error="raise"`, that is the first prompt's error or the iterable's exception. In
            both modes, it is any exception that is not a `GPROChatError`, such as for a closed
            client.
        """
        return await self._receive(yields=True)

    async def __anext__(self) -> _Item:
        """Return the next result, for `async for`.

        Unlike `receive`, this only checks for cancellation between results that have already
        arrived, and does not let other tasks run.
        """
        try:
            return await self._receive(yields=False)
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def _receive(self, *, yields: bool) -> _Item:
        """Return the next result.

        :param yields: Always let other tasks run. If False, they run only if there is no result
            yet, or after as many results as fit into the channel.
        """
        with self._guard:
            if self._tasks is None:
                raise RuntimeError("a fan-out must be entered first: async with ... as results")
            loop = self._affinity.check()
            channel = self._channel
            if channel.is_ready() and not yields and self._without_turn < channel.room:
                self._without_turn += 1
                await loop.checkpoint_if_cancelled()
            else:
                self._without_turn = 0
                if channel.is_ready():
                    await loop.checkpoint()
                else:
                    await channel.wait()
            item: _Item | None = channel.take()
        if item is not None:
            if type(item) is not Chunk:
                self._scheduler.taken()
            return item
        if self._closed:
            raise anyio.ClosedResourceError("this fan-out is closed; start another one")
        if self._scheduler.failure is not None:
            raise self._scheduler.failure
        if not self._scheduler.is_complete:
            await checkpoint()  # the cancellation includes this task, unless it is shielded
            raise anyio.BrokenResourceError("this fan-out was cancelled")
        raise anyio.EndOfStream

    async def aclose(self) -> None:
        """Cancel the running requests. Call this in any task of the event loop.

        The end of the block waits until they have ended. A task that is receiving gets
        `anyio.ClosedResourceError`.
        """
        self._closed = True
        self._scheduler.cancel()
        if self._tasks is not None:
            self._channel.close()
        await checkpoint()
