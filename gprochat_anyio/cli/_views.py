"""How a reply is shown as it arrives: as it is, or as Markdown in a terminal."""

from __future__ import annotations

import sys
from typing import Final, Protocol

from rich.console import Console

from ._markdown import LONGEST_BLOCK, GrowingMarkdown, Line, rendered
from ._output import Output
from ._painter import Painter

WAITING: Final = "…"


class View(Protocol):
    """Shows one reply. Its methods wait for the terminal, so they belong into a thread.

    :raises PipeClosedError: if nobody reads stdout any more
    :raises OSError: if stdout can not be written for another reason
    """

    pause: float
    """Seconds to leave between two calls of `show`."""

    def show(self, text: str) -> None:
        """Show more of the reply; nothing, while it is waited for."""
        ...

    def end(self) -> None:
        """End the reply, in a line of its own."""
        ...


class PlainView:
    """The text as it is."""

    pause = 0.0

    def __init__(self, output: Output) -> None:
        self._output = output

    def show(self, text: str) -> None:
        if text:
            self._output.write(text)

    def end(self) -> None:
        self._output.end_line()


class MarkdownView:
    """Rendered: a block that is finished is printed once, the one that grows is repainted."""

    pause = 1 / 15

    def __init__(self, output: Output, console: Console) -> None:
        self._output = output
        self._console = console
        self._painter = Painter(output.draw, output.size)
        self._text = GrowingMarkdown()
        self._any = False  # whether a block is above, to leave a line between
        self._as_it_is = False

    def show(self, text: str) -> None:
        if self._as_it_is:
            self._output.write(text)
            return
        for block in self._text.feed(text):
            self._commit(block)
        tail = self._text.tail
        if len(tail) > LONGEST_BLOCK:
            self._as_it_is = True
            self._painter.commit(self._gap(tail))
            self._output.write(tail)
        elif tail or self._any:
            self._painter.paint(self._lines(tail))
        else:
            self._painter.paint([Line(WAITING, 1)])

    def end(self) -> None:
        if self._as_it_is:
            self._output.end_line()
        else:
            self._commit(self._text.tail)

    def _commit(self, block: str) -> None:
        lines = self._lines(block)
        self._painter.commit(lines)
        self._any = self._any or bool(lines)

    def _lines(self, text: str) -> list[Line]:
        lines = rendered(text, self._console, self._output.size().columns)
        return [*self._gap(lines), *lines]

    def _gap(self, what: object) -> list[Line]:
        return [Line("", 0)] if what and self._any else []


def console_of(output: Output) -> Console | None:
    """What renders Markdown for this stdout; None where that can not be."""
    if not output.terminal:
        return None
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    return None if console.is_dumb_terminal or console.legacy_windows else console
