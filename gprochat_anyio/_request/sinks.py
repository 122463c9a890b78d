"""Sinks for the text of a reply: a memory object channel, a buffer, or a caller's channel.

A sink reports how much text is waiting for its consumer, by which the socket is paused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import Protocol

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

_ITEMS = 16  # of a channel; more are joined, as small strings take 25 times the size of their text

LEFT = -1
"""Return value of `TextSink.put` once the consumer has left."""


class TextSink(Protocol):
    """Receiver of the text of one reply. No method may wait."""

    def put(self, text: str) -> int:
        """Accept text. Return how many of its bytes are waiting for the consumer, or `LEFT`."""
        ...

    def end(self) -> None:
        """Handle the end of the text."""
        ...


def size_of(text: str) -> int:
    """Return the size of a text in UTF-8, in bytes."""
    return len(text) if text.isascii() else len(text.encode())


class TextBuffer:
    """Text that grows at its end. Appending costs the piece's length, and reading nothing.

    CPython appends to a string in place if there is no other reference to it. A caller that keeps a
    reference to `text` therefore costs a copy at the next append.
    """

    __slots__ = ("text",)

    def __init__(self) -> None:
        self.text = ""

    def append(self, piece: str) -> None:
        """Append text."""
        text, self.text = self.text, ""
        text += piece
        self.text = text


class Collector(TextBuffer):
    """Sink that keeps the whole text, for `ask`."""

    __slots__ = ()

    def put(self, text: str) -> int:
        """Keep the text. None of it waits for the consumer."""
        self.append(text)
        return 0

    def end(self) -> None:
        """Do nothing, because the text is complete."""


class ChannelSink:
    """Sink that feeds a memory object channel. If the consumer is behind, later text is joined."""

    __slots__ = ("_items", "_rest", "_send", "receive_stream")

    receive_stream: MemoryObjectReceiveStream[str]
    """The consumer's end, which the consumer closes."""

    def __init__(self) -> None:
        # the reply limits the text in bytes, by pausing the socket
        self._send: MemoryObjectSendStream[str]
        self._send, self.receive_stream = anyio.create_memory_object_stream(inf)
        self._items = 0
        self._rest = TextBuffer()

    def put(self, text: str) -> int:
        """Send the text to the channel, or hold it until there is room."""
        if self._items < _ITEMS:
            self._items += 1
            self._send.send_nowait(text)
        else:
            self._rest.append(text)
        return size_of(text)

    def take(self) -> str:
        """Return the next text in the channel.

        :raises anyio.WouldBlock: If the channel is empty.
        :raises anyio.EndOfStream: If the channel is empty and has ended.
        """
        text = self.receive_stream.receive_nowait()
        self._items -= 1
        if self._rest.text:
            self._flush()
        return text

    def close(self) -> None:
        """Close both ends of the channel."""
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
    """Sink that forwards text and keeps all of it, for `stream_to` and `fan_out`.

    :param offer: Forward a text, or return False if there is no room. A `BrokenResourceError` or
        `ClosedResourceError` means that the consumer has left.
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
        """True if text is held because there was no room for it."""
        return bool(self._held.text)

    def put(self, text: str) -> int:
        """Forward the text, or append it to the text that is held."""
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

        Text that arrives meanwhile is held. Cancellation loses the text, and the reply with it.
        """
        held, self._held = self._held.text, TextBuffer()
        self._is_passing_on = True
        try:
            await send(held)
        finally:
            self._is_passing_on = False
        return size_of(held)
