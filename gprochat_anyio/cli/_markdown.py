"""Markdown that is still being written, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Final, NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown
from rich.segment import Segment, Segments
from rich.syntax import Syntax

from ._output import visible

LONGEST_BLOCK: Final = 32_768
"""Characters; what goes on beyond that is shown as it is, since each look at it takes longer."""

# Without HTML: rich would drop it, and a reply about `<div>` would have holes.
_parser: Final = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])


class Line(NamedTuple):
    """A line of a terminal."""

    text: str
    """With its colours, and no other control characters."""
    cells: int
    """How many columns it takes."""


class GrowingMarkdown:
    """Text as it arrives, in blocks that are finished and one that is not.

    Once the next block has begun, in a whole line, CommonMark does not go back.
    """

    def __init__(self) -> None:
        self.tail = ""
        """The block that is not finished."""
        self._looked_at = 0

    def feed(self, text: str) -> list[str]:
        """Take text, and return the blocks that this finishes."""
        self.tail += visible(text)
        end = self.tail.rfind("\n") + 1
        if end <= self._looked_at:
            return []
        self._looked_at = end
        # The last line may yet become anything.
        starts = [start for start, _ in _top_level(_parser.parse(self.tail[:end]))]
        if len(starts) < 2:
            return []
        lines = [f"{line}\n" for line in self.tail.split("\n")]
        lines[-1] = lines[-1][:-1]
        cuts = [0, *starts[1:], len(lines)]
        *blocks, self.tail = ["".join(lines[a:b]) for a, b in pairwise(cuts)]
        self._looked_at = self.tail.rfind("\n") + 1
        return blocks


def rendered(text: str, console: Console, width: int) -> list[Line]:
    """A Markdown text as lines of this width; as it is, if it can not be rendered."""
    text = visible(text)
    markdown = _Markdown("", code_theme="ansi_dark", hyperlinks=False)
    options = console.options.update(width=width)
    try:
        markdown.parsed = _with_line_breaks(_parser.parse(text))
        rows = console.render_lines(markdown, options, pad=False)
    except Exception:  # noqa: BLE001 - whatever a site finds to trip a renderer: not the chat
        rows = console.render_lines(text, options.update(markup=False), pad=False)
    lines = [_line(row, console) for row in rows]
    while lines and not lines[-1].text.strip():
        lines.pop()
    while lines and not lines[0].text.strip():
        del lines[0]
    return lines


class _Heading(Heading):
    """At the left, and without the frame that some versions of rich give it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text


class _CodeBlock(CodeBlock):
    """At the left, as it is to be copied."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip()
        yield Syntax(code, self.lexer_name, theme=self.theme, word_wrap=True)


class _Markdown(Markdown):
    elements = {  # noqa: RUF012
        **Markdown.elements,
        "heading_open": _Heading,
        "fence": _CodeBlock,
        "code_block": _CodeBlock,
    }


def _top_level(tokens: Iterable[Token]) -> list[tuple[int, int]]:
    """The lines of each block."""
    return [(t.map[0], t.map[1]) for t in tokens if t.map and t.level == 0 and t.nesting >= 0]


def _with_line_breaks(tokens: list[Token]) -> list[Token]:
    """A model's line breaks are meant: verses, addresses."""
    for token in tokens:
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"
    return tokens


def _line(row: list[Segment], console: Console) -> Line:
    row = [Segment(visible(s.text).replace("\n", ""), s.style) for s in row if not s.control]
    while row and not (row[-1].style and row[-1].style.bgcolor):
        last = row.pop()
        if text := last.text.rstrip():
            row.append(Segment(text, last.style))
            break
    with console.capture() as captured:
        console.print(Segments(row), end="", crop=False, soft_wrap=True)
    return Line(captured.get(), sum(cell_len(segment.text) for segment in row))
