"""Colours that are legible on light and on dark backgrounds.

Not every terminal tells its background. These colours belong to the fixed part of the 256-colour
palette, and have about the same contrast against white as against black.
"""

from __future__ import annotations

from typing import Final

from pygments.token import (  # type: ignore[import-untyped]
    Comment,
    Error,
    Generic,
    Keyword,
    Literal,
    Name,
    Operator,
)
from rich.style import Style
from rich.syntax import ANSISyntaxTheme
from rich.theme import Theme

BLUE: Final = "color(63)"
GREEN: Final = "color(28)"
GREY: Final = "color(243)"
MAGENTA: Final = "color(163)"
ORANGE: Final = "color(130)"
RED: Final = "color(160)"
TEAL: Final = "color(30)"

MARKDOWN_THEME: Final = Theme(
    {
        "markdown.code": f"bold {TEAL}",
        "markdown.code_block": TEAL,
        "markdown.kbd": "bold",
        "markdown.block_quote": GREY,
        "markdown.item.number": "bold",
        "markdown.item.bullet": "bold",
        "markdown.list": "none",
        "markdown.hr": GREY,
        "markdown.h1": "bold underline",
        "markdown.h2": "bold underline",
        "markdown.h3": "bold",
        "markdown.h4": "bold italic",
        "markdown.h5": "italic",
        "markdown.h6": "italic",
        "markdown.link": BLUE,
        "markdown.link_url": f"underline {BLUE}",
        "markdown.table.border": GREY,
        "markdown.table.header": "bold",
    }
)

CODE_THEME: Final = ANSISyntaxTheme(
    {
        Comment: Style.parse(f"italic {GREY}"),
        Keyword: Style.parse(MAGENTA),
        Operator.Word: Style.parse(MAGENTA),
        Name.Builtin: Style.parse(TEAL),
        Name.Class: Style.parse(f"bold {BLUE}"),
        Name.Function: Style.parse(BLUE),
        Name.Decorator: Style.parse(ORANGE),
        Name.Exception: Style.parse(RED),
        Name.Attribute: Style.parse(TEAL),
        Name.Tag: Style.parse(MAGENTA),
        Literal.String: Style.parse(GREEN),
        Literal.Number: Style.parse(ORANGE),
        Generic.Deleted: Style.parse(RED),
        Generic.Inserted: Style.parse(GREEN),
        Generic.Heading: Style.parse("bold"),
        Generic.Subheading: Style.parse("bold"),
        Error: Style.parse(f"underline {RED}"),
    }
)
