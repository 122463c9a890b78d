"""Views of an arriving reply: plain text, or Markdown in a terminal."""

from __future__ import annotations

import sys
from typing import Final, Protocol

from rich.console import Console

from ._colours import MARKDOWN_THEME
from ._markdown import LONGEST_BLOCK, GrowingMarkdown, Line, rendered
from ._output import Output
from ._painter import Painter

WAITING: Final = "…"


class View(Protocol):
    """A view of one reply. Its methods block on the terminal; call them in a thread.

    :raises PipeClosedError: If the reader has closed stdout.
    :raises OSError: If stdout cannot be written for another reason.
    """

    pause: float
    """Minimum time between calls of `show`, in seconds."""

    def show(self, text: str) -> None:
        """Show more of the reply. An empty text shows that none has arrived yet."""
        ...

    def wait(self, seconds: float) -> None:
        """Show the time waited for the first text so far, in seconds."""
        ...

    def end(self) -> None:
        """End the reply's last line."""
        ...


class PlainView:
    """A view of the plain text."""

    pause = 0.0

    def __init__(self, output: Output) -> None:
        self._output = output

    def show(self, text: str) -> None:
        if text:
            self._output.write(text)

    def wait(self, seconds: float) -> None:
        pass

    def end(self) -> None:
        self._output.end_line()


class MarkdownView:
    """A view of the Markdown. It prints finished blocks once, and repaints the growing one."""

    pause = 1 / 15

    def __init__(self, output: Output, console: Console) -> None:
        self._output = output
        self._console = console
        self._painter = Painter(output.draw, output.size)
        self._text = GrowingMarkdown()
        self._any = False  # a block is above, so the next one needs a blank line
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

    def wait(self, seconds: float) -> None:
        if not self._any and not self._as_it_is and not self._text.tail:
            waiting = f"{WAITING} {seconds:.0f} s"
            self._painter.paint([Line(waiting, len(waiting))])

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
    """Return the console that renders Markdown on stdout. None if stdout cannot show it."""
    if not output.terminal:
        return None
    console = Console(
        file=sys.stdout, highlight=False, markup=False, emoji=False, theme=MARKDOWN_THEME
    )
    return None if console.is_dumb_terminal or console.legacy_windows else console
