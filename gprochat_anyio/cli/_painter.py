"""The last lines of a terminal, repainted without flicker."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import chain, repeat, takewhile
from typing import Final

from ._markdown import Line

# Terminals that know it show what is between at once; others ignore it.
_BEGIN: Final = "\x1b[?2026h"
_END: Final = "\x1b[?2026l"
_CLEAR: Final = "\x1b[K"  # from the cursor to the end of its line


class Painter:
    """Lines at the end of what a terminal shows, of which only those that change are written.

    The cursor is at the start of the line below them.

    :param write: to the terminal, at once
    :param size: of the terminal
    """

    def __init__(self, write: Callable[[str], None], size: Callable[[], os.terminal_size]) -> None:
        self._write = write
        self._size = size
        self._shown: Sequence[Line] = ()
        self._width = size().columns

    def paint(self, lines: Sequence[Line]) -> None:
        """Show these lines in the place of those before: the last ones, if they do not fit."""
        self._replace(lines[-self._room() :])

    def commit(self, lines: Sequence[Line]) -> None:
        """Show these lines in the place of those before, for good, however many there are."""
        self._replace(lines)
        self._shown = ()

    def _room(self) -> int:
        return max(self._size().lines - 1, 1)

    def _replace(self, lines: Sequence[Line]) -> None:
        width = self._size().columns
        resized, self._width = width != self._width, width
        if resized:  # a narrower terminal has broken the lines, or most have
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
        # Only what was longer is erased: terminals take erased cells along when they are resized,
        # and after a full line the cursor waits at its end, where that would take a character.
        for line, cells in zip(lines[keep:], before, strict=False):
            parts.append(f"{line.text}{_CLEAR if line.cells < cells else ''}\n")
        if len(self._shown) > len(lines):
            parts.append("\x1b[J")
        self._write("".join([*parts, _END]))
        self._shown = lines
