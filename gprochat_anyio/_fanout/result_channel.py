"""The channel of a fan-out's results, which loses nothing on cancellation."""

from __future__ import annotations

from typing import Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint_if_cancelled
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

_Item = TypeVar("_Item")


class ResultChannel(Generic[_Item]):
    """A memory object channel. Cancelling the consumer's wait never loses an item.

    :param room: Maximum number of items in the channel.
    """

    __slots__ = ("_arrived", "_next", "_receive", "_send", "room")

    _send: MemoryObjectSendStream[_Item]
    _receive: MemoryObjectReceiveStream[_Item]

    def __init__(self, room: int) -> None:
        self.room: int = room
        """Maximum number of items in the channel."""
        self._next: _Item | None = None  # received from the channel, but not returned yet
        self._arrived: anyio.Event | None = None  # wakes the waiting consumer

    def open(self) -> None:
        """Open both ends."""
        self._send, self._receive = anyio.create_memory_object_stream(self.room)

    # For the producer

    def offer(self, item: _Item) -> bool:
        """Put an item into the channel, or return False if there is no room."""
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
        """Close the producer's end. The items in the channel can still be received."""
        self._send.close()
        self._wake()

    # For the consumer

    def is_ready(self) -> bool:
        """Return True if `take` has an item, or if either end is closed."""
        if self._next is None:
            try:
                self._next = self._receive.receive_nowait()
            except anyio.WouldBlock:
                return False
            except (anyio.EndOfStream, anyio.ClosedResourceError):
                pass
        return True

    async def wait(self) -> None:
        """Wait until the channel is ready. Cancellation loses no item."""
        await checkpoint_if_cancelled()  # on asyncio, `Event.wait` may miss it
        while not self.is_ready():
            self._arrived = anyio.Event()
            await self._arrived.wait()

    def take(self) -> _Item | None:
        """Return the next item, or `None` if either end is closed. The channel must be ready."""
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
