"""The framing of a chunked request body, validated line by line."""

from __future__ import annotations

import re
from typing import Final

import h11

_MAX_LINE: Final = 1024
_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t -~\x80-\xff]*)?\r\n")


class ChunkedBody:
    """A parser of chunked bodies.

    Clients choose the size of their chunks, and h11 takes 20 us for each. So chunks that arrive
    together are passed to h11 as one.
    """

    def __init__(self) -> None:
        self.ended: bool = False
        """True once the last chunk's line comes next."""
        self._left = 0  # remaining bytes of the chunk
        self._open = False  # the line break that ends a chunk is expected

    def take(self, received: bytearray) -> bytearray:
        """Remove the received part of the body, and return its data.

        The line of the last chunk stays.

        :raises h11.RemoteProtocolError: If the framing is invalid.
        """
        data = bytearray()
        at = 0
        while True:
            part = received[at : at + self._left]
            data += part
            at += len(part)
            self._left -= len(part)
            if self._left:
                break
            if self._open:
                if len(received) < at + 2:
                    break
                if not received.startswith(b"\r\n", at):
                    raise h11.RemoteProtocolError("a chunk is longer than its size")
                at += 2
                self._open = False
            end = received.find(b"\n", at) + 1
            line = _LINE.fullmatch(received, at, end) if end else None
            if line is None:
                if end or len(received) - at > _MAX_LINE:
                    raise h11.RemoteProtocolError("a chunk's line is invalid")
                break
            self._left = int(line[1], 16)
            if not self._left:
                self.ended = True
                break
            self._open = True
            at = end
        del received[:at]
        return data
