"""The channel of a fan-out's events, which joins small pieces for a slow consumer."""

from __future__ import annotations

from .outcomes import Chunk, Event
from .result_channel import ResultChannel

_BEHIND = 16
"""Number of waiting pieces from which more text is joined to them."""

_LONGEST = 4096
"""Maximum length of a piece to which more text is joined."""


class _Piece:
    """A piece of one reply's text in the channel."""

    __slots__ = ("index", "text")

    def __init__(self, index: int, text: str) -> None:
        self.index = index
        self.text = text


class EventChannel(ResultChannel[Event | _Piece]):
    """A channel of events, in which text is buffered as pieces."""

    __slots__ = ("_pieces",)

    def __init__(self, room: int) -> None:
        super().__init__(room)
        self._pieces: dict[int, _Piece] = {}  # the last waiting piece of each reply

    def offer_text(self, index: int, text: str) -> bool:
        """Put text into the channel, or return False if there is no room."""
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
        """Return the next event, or `None` if either end is closed. The channel must be ready."""
        item = super().take()
        if not isinstance(item, _Piece):
            return item
        if self._pieces.get(item.index) is item:
            del self._pieces[item.index]
        return Chunk(item.index, item.text)
