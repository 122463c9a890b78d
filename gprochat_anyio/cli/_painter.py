"""The last lines of a terminal, repainted without flicker."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import chain, repeat, takewhile
from typing import Final

from ._markdown import Line

# A terminal either shows all text between these at once, or ignores them.
_BEGIN: Final = "\x1b[?2026h"
_END: Final = "\x1b[?2026l"
_CLEAR: Final = "\x1b[K"  # from the cursor to the end of its line


class Painter:
    """Painter of the last lines of a terminal, which writes only changed lines.

    The cursor stays at the start of the line below them.

    :param write: Writes to the terminal, and flushes.
    :param size: Returns the terminal's size.
    """

    def __init__(self, write: Callable[[str], None], size: Callable[[], os.terminal_size]) -> None:
        self._write = write
        self._size = size
        self._shown: Sequence[Line] = ()
        self._width = size().columns

    def paint(self, lines: Sequence[Line]) -> None:
        """Replace the painted lines. If the new ones do not fit, show the last of them."""
        self._replace(lines[-self._room() :])

    def commit(self, lines: Sequence[Line]) -> None:
        """Replace the painted lines with final ones, all of which are shown."""
        self._replace(lines)
        self._shown = ()

    def _room(self) -> int:
        return max(self._size().lines - 1, 1)

    def _replace(self, lines: Sequence[Line]) -> None:
        width = self._size().columns
        resized, self._width = width != self._width, width
        if resized:  # most terminals have rewrapped the lines
            keep, up = 0, sum(max(1, -(-line.cells // width)) for line in self._shown)
        else:
            pairs = zip(self._shown, lines, strict=False)
            keep = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            up = len(self._shown) - keep
        up = min(up, self._room())
        if not up and keep == len(lines):
            return
        parts = [_BEGIN, f"\x1b[{up}A" if up else "", "\r", "\x1b[J" if resized else ""]
        before = chain((0 if resized else line.cells for line in self._shown[keep:]), repeat(0))
        # Erase only after lines that got shorter. A resized terminal rewraps erased cells as text,
        # and after a full line the cursor is still on its last character, which would be erased.
        for line, cells in zip(lines[keep:], before, strict=False):
            parts.append(f"{line.text}{_CLEAR if line.cells < cells else ''}\n")
        if len(self._shown) > len(lines):
            parts.append("\x1b[J")
        self._write("".join([*parts, _END]))
        self._shown = lines
