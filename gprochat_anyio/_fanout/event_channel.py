"""The channel of a fan-out's events: a consumer that is behind finds small pieces joined."""

from __future__ import annotations

from .outcomes import Chunk, Event
from .result_channel import ResultChannel

_BEHIND = 16
"""Pieces that wait before further text is joined to them."""

_LONGEST = 4096
"""Characters of a piece that others are joined to, at the most."""


class _Piece:
    """Text of one reply that waits in the channel."""

    __slots__ = ("index", "text")

    def __init__(self, index: int, text: str) -> None:
        self.index = index
        self.text = text


class EventChannel(ResultChannel[Event | _Piece]):
    """A channel of events, in which text waits in pieces."""

    __slots__ = ("_pieces",)

    def __init__(self, room: int) -> None:
        super().__init__(room)
        self._pieces: dict[int, _Piece] = {}  # of each reply the last that waits

    def offer_text(self, index: int, text: str) -> bool:
        """Put text into the channel; return False if there is no room."""
        pieces = self._pieces
        if len(pieces) >= _BEHIND:
            piece = pieces.get(index)
            if piece is not None and len(piece.text) + len(text) <= _LONGEST:
                piece.text += text
                return True
        piece = _Piece(index, text)
        if not self.offer(piece):
            return False
        pieces[index] = piece
        return True

    async def put_text(self, index: int, text: str) -> None:
        """Put text into the channel once there is room."""
        self._pieces.pop(index, None)
        await self.put(Chunk(index, text))

    def take(self) -> Event | None:
        """Return the next event, or None once either end is closed, of a channel that is ready."""
        item = super().take()
        if not isinstance(item, _Piece):
            return item
        if self._pieces.get(item.index) is item:
            del self._pieces[item.index]
        return Chunk(item.index, item.text)
