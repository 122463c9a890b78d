"""Colours of the chat: legible on light and on dark backgrounds."""

from __future__ import annotations

from collections.abc import Iterator

from rich.color import Color
from rich.style import Style

from gprochat_anyio.cli import _colours
from gprochat_anyio.cli._colours import CODE_THEME, MARKDOWN_THEME

BLACK, WHITE = Color.parse("#000000"), Color.parse("#ffffff")


def luminance(colour: Color) -> float:
    """Return the relative luminance of a colour (WCAG 2)."""
    shares = [value / 255 for value in colour.get_truecolor()]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: Color, other: Color) -> float:
    dark, light = sorted(luminance(colour) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def styles() -> Iterator[Style]:
    for name, style in MARKDOWN_THEME.styles.items():
        if name.startswith("markdown."):
            yield style
    yield from CODE_THEME.style_map.values()


def test_every_colour_has_a_contrast_to_both_backgrounds() -> None:
    colours = {style.color for style in styles() if style.color is not None}
    assert len(colours) >= 7
    for colour in colours:
        assert contrast(colour, BLACK) >= 3.8, colour.name
        assert contrast(colour, WHITE) >= 3.8, colour.name


def test_no_style_has_a_background_of_its_own() -> None:
    assert not [style for style in styles() if style.bgcolor is not None]


def test_the_colours_are_of_the_fixed_part_of_the_palette() -> None:
    named = [v for name, v in vars(_colours).items() if name.isupper() and isinstance(v, str)]
    assert len(named) == 7
    assert all((Color.parse(name).number or 0) >= 16 for name in named)
