"""Markdown that is still arriving, as lines for a terminal."""

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

from ._colours import CODE_THEME
from ._output import visible

LONGEST_BLOCK: Final = 32_768
"""Length of a block, in characters, beyond which it is shown unrendered: each update costs more."""

# Without HTML: rich would drop it, and a reply about `<div>` would have holes.
parser: Final = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])


class Line(NamedTuple):
    """A line of a terminal."""

    text: str
    """The text with its colours, and no other control characters."""
    cells: int
    """Its width in columns."""


class GrowingMarkdown:
    """Arriving text, divided into finished blocks and an unfinished one.

    In CommonMark, a whole line that begins a block finishes the one before it.
    """

    def __init__(self) -> None:
        self.tail = ""
        """The unfinished block."""
        self._looked_at = 0

    def feed(self, text: str) -> list[str]:
        """Append text, and return the blocks that it finishes."""
        self.tail += visible(text)
        end = self.tail.rfind("\n") + 1
        if end <= self._looked_at:
            return []
        self._looked_at = end
        # An unfinished last line may still become anything.
        starts = [start for start, _ in _top_level(parser.parse(self.tail[:end]))]
        if len(starts) < 2:
            return []
        lines = [f"{line}\n" for line in self.tail.split("\n")]
        lines[-1] = lines[-1][:-1]
        cuts = [0, *starts[1:], len(lines)]
        *blocks, self.tail = ["".join(lines[a:b]) for a, b in pairwise(cuts)]
        self._looked_at = self.tail.rfind("\n") + 1
        return blocks


def rendered(text: str, console: Console, width: int) -> list[Line]:
    """Return a Markdown text as lines of this width, unrendered if rendering fails."""
    text = visible(text)
    markdown = _Markdown("", hyperlinks=False)
    options = console.options.update(width=width)
    try:
        markdown.parsed = _with_line_breaks(parser.parse(text))
        rows = console.render_lines(markdown, options, pad=False)
    except Exception:  # noqa: BLE001 - no text of a site may end the chat
        rows = console.render_lines(text, options.update(markup=False), pad=False)
    lines = [_line(row, console) for row in rows]
    while lines and not lines[-1].text.strip():
        lines.pop()
    while lines and not lines[0].text.strip():
        del lines[0]
    return lines


class _Heading(Heading):
    """A heading at the left margin, without the frame of some versions of rich."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text


class _CodeBlock(CodeBlock):
    """A code block at the left margin, as it will be copied."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip()
        yield Syntax(code, self.lexer_name, theme=CODE_THEME, word_wrap=True)


class _Markdown(Markdown):
    elements = {  # noqa: RUF012
        **Markdown.elements,
        "heading_open": _Heading,
        "fence": _CodeBlock,
        "code_block": _CodeBlock,
    }


def _top_level(tokens: Iterable[Token]) -> list[tuple[int, int]]:
    """Return the first line of each block, and the line after it."""
    return [(t.map[0], t.map[1]) for t in tokens if t.map and t.level == 0 and t.nesting >= 0]


def _with_line_breaks(tokens: list[Token]) -> list[Token]:
    """Keep a model's line breaks, as in verses and addresses."""
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
