"""Markdown in a terminal while it arrives."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console
from support.screen import Screen

from gprochat_anyio.cli import _markdown, _views
from gprochat_anyio.cli._markdown import GrowingMarkdown, Line, rendered
from gprochat_anyio.cli._output import Output
from gprochat_anyio.cli._painter import Painter
from gprochat_anyio.cli._views import WAITING, MarkdownView, PlainView, console_of

TEXT = """\
# Title of *it*

A paragraph with **bold** and `code`,
in two lines, <T> and &#27;[2J.

- one
- two

  more of two

1. first
2. second

```python
def f():

    return 1
```

| a | b |
|---|---|
| 1 | 2 |

> quoted

<div>no HTML</div>
"""
SHOWN = """\
Title of it

A paragraph with bold and code,
in two lines, <T> and \ufffd[2J.

 • one
 • two
   more of two

 1 first
 2 second

def f():

    return 1

 a  b
 ──────
 1  2

▌ quoted

<div>no HTML</div>"""


class Terminal:
    """A screen, and the `Output` and `Console` that write to it."""

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        self.screen = Screen(columns, lines)
        self.output: Any = SimpleNamespace(
            write=self.screen.write, draw=self.screen.write, size=self.size, end_line=self.end_line
        )
        self.console = Console(file=io.StringIO(), force_terminal=True, color_system="standard")

    def size(self) -> os.terminal_size:
        return os.terminal_size((self.screen.columns, self.screen.lines))

    def end_line(self) -> None:
        if self.screen.column:
            self.screen.write("\n")

    def view(self) -> MarkdownView:
        return MarkdownView(self.output, self.console)


def show(text: str, size: int, columns: int = 80, lines: int = 24) -> Terminal:
    terminal = Terminal(columns, lines)
    view = terminal.view()
    view.show("")
    for at in range(0, len(text), size):
        view.show(text[at : at + size])
    view.end()
    return terminal


class TestView:
    @pytest.mark.slow
    @pytest.mark.parametrize("size", [1, 7, 1000])
    def test_shows_the_same_however_it_arrives(self, size: int) -> None:
        terminal = show(TEXT, size)
        table = re.compile(r"\s+a +b\s+[─━]+\s+1 +2\s+")  # the gaps differ among versions of rich
        seen, found = table.subn("\n", terminal.screen.text)
        assert found == 1
        assert seen == table.sub("\n", SHOWN)
        assert terminal.screen.column == 0

    @pytest.mark.slow
    @pytest.mark.parametrize("columns", [1, 5, 20, 33])
    @pytest.mark.parametrize("lines", [2, 5])
    def test_fits_any_terminal(self, columns: int, lines: int) -> None:
        shown = {show(TEXT, size, columns, lines).screen.text for size in (3, 1000)}
        assert len(shown) == 1

    @pytest.mark.slow
    def test_a_reply_beyond_the_screen_is_whole_in_the_end(self) -> None:
        code = "```\n" + "".join(f"line {n}\n" for n in range(100)) + "```\n"
        terminal = show(code, 20, lines=10)
        assert terminal.screen.text.split() == [w for n in range(100) for w in ("line", str(n))]

    def test_waits_with_a_sign(self) -> None:
        terminal = Terminal()
        view = terminal.view()
        view.show("")
        assert terminal.screen.text == WAITING
        view.end()
        assert terminal.screen.text == ""

    def test_shows_the_time_of_waiting_until_the_first_text(self) -> None:
        terminal = Terminal(80, 24)
        view = terminal.view()
        view.show("")
        view.wait(41.9)
        assert terminal.screen.text == f"{WAITING} 42 s"
        view.show("text")
        view.wait(43.0)
        assert terminal.screen.text == "text"
        view.show("\n\n")
        view.wait(44.0)
        assert terminal.screen.text.strip() == "text"

    def test_erases_nothing_while_text_grows(self) -> None:
        terminal = Terminal()
        view = terminal.view()
        for word in TEXT.split("\n\n")[1].split(" "):
            view.show(word + " ")
        assert terminal.screen.erased == 0

    def test_a_block_that_is_very_long_goes_on_as_it_is(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_views, "LONGEST_BLOCK", 20)
        terminal = Terminal()
        view = terminal.view()
        for text in ("short *one*\n\n", "long\nand longer and ", "*longer*", "\n\nand *more*"):
            view.show(text)
        view.end()
        expected = "short one\n\nlong\nand longer and *longer*\n\nand *more*"
        assert terminal.screen.text == expected
        assert terminal.screen.column == 0

    @pytest.mark.parametrize("text", ["", "\n\n", " "])
    def test_a_reply_without_text_leaves_nothing(self, text: str) -> None:
        assert show(text, 1).screen.text == ""

    def test_a_renderer_that_fails_leaves_the_text(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(_: object) -> None:
            raise RecursionError

        monkeypatch.setattr(_markdown, "_with_line_breaks", fail)
        assert show("*some* [b]text[/b]\n", 3).screen.text == "*some* [b]text[/b]"

    @given(
        text=st.text(
            st.sampled_from("a*_`#>-+1.|~[]()!<&;\\\n\t 世\x1b\r\x85\u2028")
            | st.characters(exclude_categories=["Cs"])
        ),
        size=st.integers(1, 9),
        columns=st.integers(1, 30),
        lines=st.integers(1, 6),
    )
    @example(text="a\n#b\n\nc", size=1, columns=9, lines=9)
    @example(text="[a]: x\n\n[a]\n\n- \n-\n\n  a", size=1, columns=9, lines=9)
    def test_nothing_breaks_it(self, text: str, size: int, columns: int, lines: int) -> None:
        terminal = Terminal(columns, lines)
        # Checks only the control sequences, and their limits.
        written: list[str] = []
        terminal.output.draw = terminal.output.write = written.append
        view = terminal.view()
        for at in range(0, len(text), size):
            view.show(text[at : at + size])
        view.end()
        allowed = r"\x1b\[(\d+A|[KJ]|\?2026[hl]|[\d;]*m)"
        rest = re.sub(allowed, "", "".join(written)).replace("\r", "")
        assert "\x1b" not in rest
        assert not set(rest) & {chr(n) for n in [*range(9), *range(11, 32), *range(127, 160)]}


class TestGrowingMarkdown:
    @pytest.mark.parametrize("size", [1, 5, 1000])
    def test_loses_nothing(self, size: int) -> None:
        growing = GrowingMarkdown()
        blocks = []
        for at in range(0, len(TEXT), size):
            blocks += growing.feed(TEXT[at : at + size])
        assert "".join([*blocks, growing.tail]) == TEXT
        assert [block.strip()[:4] for block in blocks] == [
            "# Ti", "A pa", "- on", "1. f", "```p", "| a ", "> qu",
        ]  # fmt: skip

    def test_an_unfinished_line_ends_no_block(self) -> None:
        growing = GrowingMarkdown()
        assert growing.feed("a\n#") == []
        assert growing.feed("b\n") == []
        assert growing.tail == "a\n#b\n"


class TestPainter:
    @pytest.fixture
    def screen(self) -> Screen:
        return Screen(10, 4)

    @pytest.fixture
    def paint(self, screen: Screen) -> Callable[[str], None]:
        painter = Painter(screen.write, lambda: os.terminal_size((screen.columns, screen.lines)))
        return lambda text: painter.paint([Line(row, len(row)) for row in text.split("\n")])

    def test_writes_what_changes(self) -> None:
        written: list[str] = []
        painter = Painter(written.append, lambda: os.terminal_size((80, 24)))
        painter.paint([Line("one", 3)])
        painter.paint([Line("one", 3)])
        assert len(written) == 1

    def test_shrinks(self, screen: Screen, paint: Callable[[str], None]) -> None:
        paint("one\nlonger\nthree")
        paint("one\nlong")
        assert screen.text == "one\nlong"
        paint("0123456789\nlong")
        assert screen.text == "0123456789\nlong"

    def test_shows_the_last_lines(self, screen: Screen, paint: Callable[[str], None]) -> None:
        paint("1\n2\n3\n4\n5")
        assert screen.text == "3\n4\n5"

    def test_follows_a_terminal_that_breaks_lines(
        self, screen: Screen, paint: Callable[[str], None]
    ) -> None:
        paint("12345678\nx")
        screen.columns = 5
        screen.rows, screen.row = ["12345", "678", "x", ""], 3
        paint("12345\n678\ny")
        assert screen.text == "12345\n678\ny"
        paint("z")
        assert screen.text == "z"


class TestPlain:
    def test_is_the_text(self) -> None:
        terminal = Terminal()
        view = PlainView(terminal.output)
        view.show("")
        view.show("*some* ")
        view.show("text")
        view.end()
        assert terminal.screen.text == "*some* text"
        assert terminal.screen.column == 0


def test_a_line_holds_its_width() -> None:
    (line,) = rendered("**世**", Console(force_terminal=True, color_system="standard"), 10)
    assert line == Line("\x1b[1m世\x1b[0m", 2)


@pytest.mark.parametrize(
    ("terminal", "term", "renders"),
    [(True, "xterm", True), (True, "dumb", False), (False, "xterm", False)],
)
def test_needs_a_terminal_that_can(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, term: str, renders: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr("sys.stdout", stream)
    assert (console_of(Output()) is not None) is renders


def test_a_stdout_without_a_size_has_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, "w", encoding="utf-8") as stream:  # noqa: PTH123
        monkeypatch.setattr("sys.stdout", stream)
        assert Output().size() == (80, 24)
