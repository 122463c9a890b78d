"""The channel of a fan-out's results."""

from __future__ import annotations

from typing import Generic, TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

_Item = TypeVar("_Item")


class ResultChannel(Generic[_Item]):
    """A memory object channel whose consumer loses nothing, however its wait is cancelled.

    :param room: the number of items that may wait in it
    """

    __slots__ = ("_arrived", "_next", "_receive", "_send", "room")

    _send: MemoryObjectSendStream[_Item]
    _receive: MemoryObjectReceiveStream[_Item]

    def __init__(self, room: int) -> None:
        self.room = room
        """The number of items that may wait."""
        self._next: _Item | None = None  # taken out of the channel, and not yet handed over
        self._arrived: anyio.Event | None = None  # set for the consumer that waits

    def open(self) -> None:
        """Open both ends."""
        self._send, self._receive = anyio.create_memory_object_stream(self.room)

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

    def is_ready(self) -> bool:
        """Return True if `take` has an item, or either end is closed."""
        if self._next is None:
            try:
                self._next = self._receive.receive_nowait()
            except anyio.WouldBlock:
                return False
            except (anyio.EndOfStream, anyio.ClosedResourceError):
                pass
        return True

    async def wait(self) -> None:
        """Wait until it is ready. Cancelled, it loses nothing."""
        while not self.is_ready():
            self._arrived = anyio.Event()
            await self._arrived.wait()

    def take(self) -> _Item | None:
        """Return the next item, or None once either end is closed, of a channel that is ready."""
        item, self._next = self._next, None
        return item

    def close(self) -> None:
        """Close both ends."""
        self._next = None
        self._receive.close()
        self.end()

    def _wake(self) -> None:
        if self._arrived is not None:
            self._arrived.set()
