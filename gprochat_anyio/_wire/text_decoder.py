"""From the bytes of a reply to its text: strict UTF-8 over any split, and the failure marker.

A reply has no framing of its own, so chunk borders mean nothing, with one exception: a site
whose model failed after the head was sent says so by `Internal server error` as a last HTTP
chunk of its own. A chunk that may still turn out to be that marker is the only thing held back.
"""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable, Sequence

from .gprochat import FAILURE_MARKER


class ReplyDecoder:
    """Turns what arrived into text, one read at a time.

    A read is a list of pieces of body; an empty piece stands for the end of an HTTP chunk::

        decoder.feed([b"Hel", b"lo", b"", b"wor"])   # one chunk ended, the next has begun

    :param failure_marker: whether to look for the marker; without, it is text like any other
    :param max_size: how many bytes of text are taken, None for any number; a reply of more is
        broken, behind the text of those
    """

    __slots__ = (
        "_failure_marker",
        "_held",
        "_held_whole",
        "_inside",
        "_max_size",
        "_room",
        "_undecoded",
        "failure",
    )

    def __init__(self, *, failure_marker: bool = True, max_size: int | None = None) -> None:
        self.failure: str | None = None
        """Why the reply is broken, once it is; what was fed after that point is dropped."""
        self._failure_marker = failure_marker
        self._max_size = max_size
        self._room = sys.maxsize if max_size is None else max_size
        self._held = b""  # a whole chunk, or the start of one, that may be the marker
        self._held_whole = False  # what is held back is the marker, as a whole chunk
        self._inside = False  # the current chunk has begun, and is known to be text
        self._undecoded = b""  # the start of a character whose other bytes are still to come

    def feed(self, pieces: Sequence[bytes], chunk_size: Callable[[bytes], int | None]) -> str:
        """The text that these pieces complete, maybe none.

        :param chunk_size: given what has come of the chunk that the last piece leaves unfinished,
            tells its size, None if unknown. Only asked when that may be the marker.
        """
        if self._failure_marker and (self._held or pieces[-1]):
            return self._decode(self._without_marker(pieces, chunk_size))
        data = b"".join(pieces)
        if self._failure_marker and (data.endswith(FAILURE_MARKER) or not data):
            data = self._without_marker(pieces, chunk_size)
        else:
            self._inside = False
        return self._decode(data)

    def finish(self) -> None:
        """The body is complete: set `failure` if the reply is not."""
        if self._take_held():
            self._fail("the site reported that its model failed")
        elif self._undecoded:
            self._fail("its last character is cut off")

    def cut(self) -> str:
        """The text that is left when the body broke off: held back, but no marker."""
        held = self._take_held()
        return self._decode(held) if held != FAILURE_MARKER else ""

    def _without_marker(
        self, pieces: Sequence[bytes], chunk_size: Callable[[bytes], int | None]
    ) -> bytes:
        text = [] if self._held else self._surely_text(pieces)
        for piece in pieces[len(text) :]:
            if self._inside:
                text.append(piece)
                self._inside = bool(piece)
            elif not piece and self._held == FAILURE_MARKER:
                self._held_whole = True
            elif not piece:
                text.append(self._take_held())
            else:
                if self._held_whole:  # another chunk follows, so it was text
                    text.append(self._take_held())
                if FAILURE_MARKER.startswith(self._held + piece):
                    self._held += piece
                else:
                    text += (self._take_held(), piece)
                    self._inside = True
        if self._held and pieces[-1] and chunk_size(self._held) not in (len(FAILURE_MARKER), None):
            text.append(self._take_held())
            self._inside = True
        return b"".join(text)

    def _surely_text(self, pieces: Sequence[bytes]) -> list[bytes]:
        """The pieces before the last chunk: no marker, since another chunk follows them."""
        last = len(pieces)
        while last and not pieces[last - 1]:
            last -= 1
        while last and pieces[last - 1]:
            last -= 1
        if last:
            self._inside = False
        return list(pieces[:last])

    def _take_held(self) -> bytes:
        held, self._held, self._held_whole = self._held, b"", False
        return held

    def _decode(self, data: bytes) -> str:
        if self.failure is not None:
            return ""
        self._room -= len(data)
        if self._room < 0:
            data = data[: self._room]
        if self._undecoded:
            data = self._undecoded + data
        try:
            text, used = codecs.utf_8_decode(data, "strict", False)
        except UnicodeDecodeError as error:
            text, used = data[: error.start].decode(), len(data)
            self._fail("it holds bytes that are no UTF-8")
        self._undecoded = data[used:]
        if self._room < 0:
            self._fail(f"it is larger than max_reply_size, {self._max_size} bytes")
        return text

    def _fail(self, reason: str) -> None:
        self.failure = self.failure or reason
