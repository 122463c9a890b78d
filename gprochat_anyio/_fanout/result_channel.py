"""The channel of a fan-out's results."""

from __future__ import annotations

from typing import Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

_Item = TypeVar("_Item")


class ResultChannel(Generic[_Item]):
    """A memory object channel whose consumer loses nothing, however its wait is cancelled.

    :param room: how many items may wait in it
    """

    __slots__ = ("_arrived", "_next", "_receive", "_room", "_send", "_without_turn")

    _send: MemoryObjectSendStream[_Item]
    _receive: MemoryObjectReceiveStream[_Item]

    def __init__(self, room: int) -> None:
        self._room = room
        self._next: _Item | None = None  # taken out of the channel, and not yet handed over
        self._without_turn = 0  # items taken since the event loop had a turn
        self._arrived: anyio.Event | None = None  # set for the consumer that waits

    def open(self) -> None:
        """Open both ends."""
        self._send, self._receive = anyio.create_memory_object_stream(self._room)

    # For the producer

    def offer(self, item: _Item) -> bool:
        """Put an item into the channel; return False if there is no room."""
        try:
            self._send.send_nowait(item)
        except anyio.WouldBlock:
            return False
        self._wake()
        return True

    async def put(self, item: _Item) -> None:
        """Put an item into the channel once there is room."""
        if not self.offer(item):
            await self._send.send(item)
            self._wake()  # the channel may have been emptied at `send`'s first checkpoint

    def end(self) -> None:
        """Close the producer's end: what is in the channel is still received."""
        self._send.close()
        self._wake()

    # For the consumer

    async def receive(self, *, yields: bool) -> _Item | None:
        """Return the next item, or None once either end is closed.

        :param yields: True to be a checkpoint always; False to let the event loop have a turn only
            if there is none yet, or the channel's whole room was taken without one
        """
        if self._take():
            if yields or self._without_turn >= self._room:
                self._without_turn = 0
                await checkpoint()
            else:
                self._without_turn += 1
                await checkpoint_if_cancelled()
        else:
            self._without_turn = 0
            while not self._take():
                self._arrived = anyio.Event()
                await self._arrived.wait()
        item, self._next = self._next, None
        return item

    def close(self) -> None:
        """Close both ends."""
        self._next = None
        self._receive.close()
        self.end()

    def _take(self) -> bool:
        """Take the next item out of the channel; return False if there is none yet."""
        if self._next is None:
            try:
                self._next = self._receive.receive_nowait()
            except anyio.WouldBlock:
                return False
            except (anyio.EndOfStream, anyio.ClosedResourceError):
                pass
        return True

    def _wake(self) -> None:
        if self._arrived is not None:
            self._arrived.set()
