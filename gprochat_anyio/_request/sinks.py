"""Where the text of a reply goes, as the reactor decodes it: a channel, a buffer, or the caller's.

A sink tells how much of the text waits for its consumer. That is what pauses the socket.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import Protocol

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

_ITEMS = 16  # in a channel, before further text is joined: small strings take 25 times their text

LEFT = -1
"""What `TextSink.put` returns once the consumer has left."""


class TextSink(Protocol):
    """Takes the text of one reply. Nothing here may wait."""

    def put(self, text: str) -> int:
        """Take text; return how many of its bytes wait for the consumer, or `LEFT`."""
        ...

    def end(self) -> None:
        """Take note that no more text comes."""
        ...


def size_of(text: str) -> int:
    """Return how many bytes a text takes in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


class TextBuffer:
    """Text that grows at its end: appending takes no longer than the piece, and reading no time.

    CPython appends to a string in place while nothing else refers to it. So a caller that keeps
    each `text` it has read pays for a copy; one that only looks at it does not.
    """

    __slots__ = ("text",)

    def __init__(self) -> None:
        self.text = ""

    def append(self, piece: str) -> None:
        """Add text at the end."""
        text, self.text = self.text, ""
        text += piece
        self.text = text


class Collector(TextBuffer):
    """Keeps the whole text: for `ask`."""

    __slots__ = ()

    def put(self, text: str) -> int:
        """Keep the text; nothing waits."""
        self.append(text)
        return 0

    def end(self) -> None:
        """Do nothing: the text is there."""


class ChannelSink:
    """Feeds a memory object channel. A consumer that is behind finds the rest in one piece."""

    __slots__ = ("_items", "_rest", "_send", "receive_stream")

    receive_stream: MemoryObjectReceiveStream[str]
    """The consumer's end, which is the consumer's to close."""

    def __init__(self) -> None:
        # the bound is the reply's, in bytes: it pauses the socket
        self._send: MemoryObjectSendStream[str]
        self._send, self.receive_stream = anyio.create_memory_object_stream(inf)
        self._items = 0
        self._rest = TextBuffer()

    def put(self, text: str) -> int:
        """Put the text into the channel, or behind what is in it."""
        if self._items < _ITEMS:
            self._items += 1
            self._send.send_nowait(text)
        else:
            self._rest.append(text)
        return size_of(text)

    def take(self) -> str:
        """Return the next text in the channel.

        :raises anyio.WouldBlock: If there is none.
        :raises anyio.EndOfStream: If none will come.
        """
        text = self.receive_stream.receive_nowait()
        self._items -= 1
        if self._rest.text:
            self._flush()
        return text

    def close(self) -> None:
        """Close both ends."""
        self.end()
        self.receive_stream.close()

    def end(self) -> None:
        """Close the reactor's end of the channel."""
        if self._rest.text:
            self._flush()
        self._send.close()

    def _flush(self) -> None:
        rest, self._rest = self._rest.text, TextBuffer()
        self._items += 1
        self._send.send_nowait(rest)


class Forwarder(Collector):
    """Passes text on while there is room, and keeps the whole text: for `stream_to` and `fan_out`.

    :param offer: passes a text on, or returns False if there is no room for it now; a
        `BrokenResourceError` or `ClosedResourceError` of its own means that the consumer has left
    """

    __slots__ = ("_held", "_is_passing_on", "_offer", "left")

    def __init__(self, offer: Callable[[str], bool]) -> None:
        super().__init__()
        self._offer = offer
        self._held = TextBuffer()
        self._is_passing_on = False
        self.left = False
        """True once the consumer has left."""

    @property
    def has_held(self) -> bool:
        """True if there is text that there was no room for."""
        return bool(self._held.text)

    def put(self, text: str) -> int:
        """Pass the text on, or hold it behind what is held already."""
        self.append(text)
        if not (self._is_passing_on or self._held.text):
            try:
                if self._offer(text):
                    return 0
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                self.left = True
                return LEFT
        self._held.append(text)
        return size_of(text)

    async def pass_on(self, send: Callable[[str], Awaitable[None]]) -> int:
        """Send the text that is held, and return its size in bytes.

        Text that arrives meanwhile is held. Cancelled, the text is lost, and with it the reply.
        """
        held, self._held = self._held.text, TextBuffer()
        self._is_passing_on = True
        try:
            await send(held)
        finally:
            self._is_passing_on = False
        return size_of(held)
