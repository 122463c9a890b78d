"""A terminal emulator for exactly the sequences that the painter sends."""

from __future__ import annotations

import re

from rich.cells import cell_len

_PART = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\n|\r|[^\x1b\n\r]+")


class Screen:
    """A screen: scrolled and visible lines, without colours."""

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        self.columns = columns
        self.lines = lines
        self.rows = [""]
        self.row = 0
        self.column = 0
        self.erased = 0
        """Number of times that non-empty cells were erased."""

    @property
    def text(self) -> str:
        return "\n".join(row.rstrip() for row in self.rows).rstrip("\n")

    def write(self, data: str) -> None:
        end = 0
        for part in _PART.finditer(data):
            assert part.start() == end, data[end:]
            end = part.end()
            if part[2]:
                self._control(part[1], part[2])
            elif part[0] == "\n":  # a terminal's driver adds the carriage return
                self._down()
                self.column = 0
            elif part[0] == "\r":
                self.column = 0
            else:
                self._print(part[0])
        assert end == len(data), data[end:]

    def _control(self, number: str, name: str) -> None:
        if name == "A":
            top = max(len(self.rows) - self.lines, 0)
            self.row -= int(number)
            assert self.row >= top, "above the visible lines"
        elif name == "K":
            self.erased += bool(self.rows[self.row][self.column :])
            self.rows[self.row] = self.rows[self.row][: self.column]
        elif name == "J":
            self.erased += any(self.rows[self.row :])
            self.rows[self.row] = self.rows[self.row][: self.column]
            del self.rows[self.row + 1 :]
        else:
            assert name == "m" or number == "?2026", name

    def _print(self, text: str) -> None:
        assert text.isprintable(), text
        assert cell_len(self.rows[self.row][: self.column] + text) <= self.columns, text
        row = self.rows[self.row].ljust(self.column)
        self.rows[self.row] = row[: self.column] + text + row[self.column + len(text) :]
        self.column += len(text)

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append("")
