"""The results of a fan-out, from the tasks that ask to the caller, over one channel."""

from __future__ import annotations

from abc import abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, get_args

import anyio
from anyio.abc import ObjectReceiveStream
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from gprochat_anyio._client import Client
from gprochat_anyio._request.chat_client import opener_of
from gprochat_anyio._request.incoming import IncomingReply
from gprochat_anyio._request.loop_affinity import LoopAffinity
from gprochat_anyio._settings import Timeouts, check

from .background_tasks import BackgroundTasks
from .outcomes import Chunk, Event, Outcome
from .pace import Pace
from .prompts import Prompts, PromptSource
from .scheduler import Scheduler

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

_Item = TypeVar("_Item", bound=Event | Outcome)

OnError = Literal["collect", "raise"]
"""What a prompt without a reply does: it is one of the results, or it ends the others."""


class Results(ObjectReceiveStream[_Item], Generic[_Item]):
    """What a fan-out gives, as it arrives: `async with ... as results`, and iterate.

    Entering the block starts to ask. Leaving it, in whatever way, cancels what still runs and
    closes every connection before it returns; an exception or a cancellation of the block's own
    leaves it as it is. Cancelling the caller cancels the requests by way of the block's end.

    :raises ValueError: that names the argument, for one that can not be
    """

    def __init__(
        self,
        client: Client,
        prompts: Prompts,
        *,
        max_at_once: int,
        max_per_second: float | None,
        timeouts: Timeouts | None,
        on_error: OnError,
        adaptive: bool,
    ) -> None:
        check("client", client, Client)
        if on_error not in get_args(OnError):
            raise ValueError("on_error must be 'collect' or 'raise'")
        self._on_error = on_error
        self._room = self._room_for(max_at_once)
        self._crew = BackgroundTasks(self._end)
        check("timeouts", timeouts, Timeouts, type(None))
        self._workers = Scheduler(
            opener_of(client),
            PromptSource(prompts),
            Pace(
                max_at_once=max_at_once,
                max_per_second=max_per_second,
                adaptive=adaptive,
                retry=client.retry,
            ),
            self._crew,
            max_at_once=max_at_once,
            timeouts=timeouts,
            sink=self._sink,
            read=self._read,
            report=self._report,
            ended=self._end,
        )
        self._guard = anyio.ResourceGuard("receiving from")
        self._home = LoopAffinity("fan-out")
        self._send: MemoryObjectSendStream[_Item] | None = None
        self._channel: MemoryObjectReceiveStream[_Item] | None = None
        self._next_item: _Item | None = None  # taken out of the channel, and not yet given
        self._arrived: anyio.Event | None = None  # set for the caller that waits
        self._without_turn = 0  # items taken since the event loop had a turn
        self._ended = self._closed = False

    async def __aenter__(self) -> Self:
        if self._send is not None:
            raise RuntimeError("a fan-out is entered once; call the function for another")
        self._home.check()
        await checkpoint()
        self._send, self._channel = anyio.create_memory_object_stream[_Item](self._room)
        await self._crew.__aenter__()
        self._crew.start(self._workers.pull)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        assert self._send is not None
        assert self._channel is not None
        self._closed = True
        self._crew.cancel()
        self._crew.check_task()
        try:
            await self._crew.__aexit__(exc_type, exc_val, exc_tb)
        finally:
            self._send.close()
            self._channel.close()
            self._next_item = None
            self._wake()

    async def receive(self) -> _Item:
        """The next result. Always a checkpoint; cancelled, it loses nothing.

        :raises anyio.EndOfStream: behind the last one
        :raises anyio.ClosedResourceError: if it was closed, or its block has ended
        :raises anyio.BusyResourceError: if another task is receiving
        :raises Exception: what ended the fan-out, behind all results before it: with
            `on_error="raise"` the first prompt's that failed or what the iterable of prompts
            raised, and always what is no `GPROChatError`, of a closed client for example
        """
        with self._guard:
            if self._send is None:
                raise RuntimeError("a fan-out is entered first: async with ... as results")
            await self._wait_for_next()
            if self._closed:
                raise anyio.ClosedResourceError("this fan-out is closed; start another")
            item, self._next_item = self._next_item, None
        if item is not None:
            if not isinstance(item, Chunk):
                self._workers.taken()
            return item
        if self._crew.failure is not None:
            raise self._crew.failure
        raise anyio.EndOfStream

    async def aclose(self) -> None:
        """Cancel what still runs, from any task of the event loop. The block's end waits until
        that is done. A task that is receiving gets `anyio.ClosedResourceError`."""
        self._closed = True
        self._crew.cancel()
        self._wake()
        await checkpoint()

    @staticmethod
    @abstractmethod
    def _room_for(max_at_once: int) -> int:
        """How many results may wait in the channel."""

    @abstractmethod
    def _sink(self, index: int) -> Any:
        """Return what takes the text of a reply."""

    @abstractmethod
    async def _read(self, index: int, reply: IncomingReply, sink: Any) -> None:
        """Wait for the end of a reply."""

    @abstractmethod
    def _last(self, outcome: Outcome) -> _Item:
        """What to say of an outcome."""

    async def _report(self, outcome: Outcome) -> None:
        if self._on_error == "raise" and outcome.error is not None:
            if not self._crew.cancelled:
                outcome.error.add_note(f"This was prompt {outcome.index} of a fan-out.")
                self._crew.fail(outcome.error)
        else:
            item = self._last(outcome)
            if not self._put(item):
                await self._put_soon(item)

    def _put(self, item: _Item) -> bool:
        """Put an item into the channel, if there is room."""
        assert self._send is not None
        try:
            self._send.send_nowait(item)
        except anyio.WouldBlock:
            return False
        self._wake()
        return True

    async def _put_soon(self, item: _Item) -> None:
        """Put an item into the channel once there is room."""
        assert self._send is not None
        await self._send.send(item)
        self._wake()  # it may have been emptied at `send`'s first checkpoint

    async def _wait_for_next(self) -> None:
        """Have the next item taken out of the channel, or nothing at its end. A checkpoint, though
        the event loop gets its turn only once the channel is empty, or its whole room was taken:
        a turn costs more than all else that an item does."""
        if self._take() and self._without_turn < self._room:
            self._without_turn += 1
            await checkpoint_if_cancelled()
            return
        self._home.check()
        self._without_turn = 0
        while self._next_item is None and not (self._ended or self._closed):
            self._arrived = arrived = anyio.Event()
            await arrived.wait()
            if self._take():
                return
        await checkpoint()

    def _take(self) -> bool:
        if self._next_item is None and not self._closed:
            assert self._channel is not None
            try:
                self._next_item = self._channel.receive_nowait()
            except anyio.WouldBlock:
                return False
        return True

    def _end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        """Let the caller look again, if it waits."""
        if self._arrived is not None:
            self._arrived.set()
