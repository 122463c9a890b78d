"""The picture of a run: horizontal bars of CPU time, lateness and latency relative to aiohttp's.

It is 400 pixels wide, so that its text is legible on a phone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from labels import label
from report import quantity
from results import Results
from workloads import Job

_TITLE = "Costs and delays, as multiples of aiohttp's"
_PANELS = {
    ("A", "cpu"): "A, one long reply: CPU per 16-byte chunk",
    ("B", "cpu"): "B, replies one after the other: CPU per request",
    ("C-1000", "cpu"): "C-1000, 1,000 replies at once: CPU per reply",
    ("C-1000", "late"): "C-1000, 1,000 replies at once: lateness of a chunk, 99th percentile",
    ("D", "first_text"): "D, one request: time to the first text",
    ("S-A", "cpu"): "S-A, OpenAI's API, one long reply: CPU per token",
    ("S-B", "cpu"): "S-B, OpenAI's API, replies one after the other: CPU per request",
    ("E", "wall"): "E, 500 open replies cancelled: time until the last socket is closed",
}
_BARS = (
    ("ours-ask", "asyncio"),
    ("ours-ask", "trio"),
    ("ours-stream", "asyncio"),
    ("ours-stream", "trio"),
    ("ours-stream_to", "asyncio"),
    ("ours-stream_to", "trio"),
    ("ours-fan_out", "asyncio"),
    ("ours-fan_out", "trio"),
    ("aiohttp", "asyncio"),
    ("httpx", "asyncio"),
    ("httpx", "trio"),
    ("httpx2", "asyncio"),
    ("httpx2", "trio"),
    ("openai", "asyncio"),
)
_FEW = {"ours-stream", "ours-fan_out", "aiohttp", "httpx", "openai"}
"""Peers in the panels of metrics other than CPU time."""

_WIDTH, _MARGIN, _LEFT, _RIGHT, _ROW, _BAR = 400, 14, 144, 128, 21, 12
_SCALE = _WIDTH - _LEFT - _RIGHT
_LONGEST = 4.5
"""Ratio of the longest bar. A gap in a longer one shows that it is cut."""

_STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
  .title { font-size: 15px; font-weight: 600; }
  .panel { font-weight: 600; }
  .end { text-anchor: end; }
  text { fill: #1f2328; stroke: #ffffff; stroke-width: 4; paint-order: stroke; }
  .pale { fill: #59636e; }
  .paper { fill: #ffffff; stroke: #d1d9e0; }
  .ours { fill: #0969da; }
  .theirs { fill: #afb8c1; }
  .cut { stroke: #ffffff; stroke-width: 3; fill: none; }
  .one { stroke: #59636e; stroke-dasharray: 3 3; }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc; stroke: #0d1117; }
    .pale { fill: #9198a1; }
    .paper { fill: #0d1117; stroke: #3d444d; }
    .ours { fill: #4493f8; }
    .theirs { fill: #59636e; }
    .cut { stroke: #0d1117; }
    .one { stroke: #9198a1; }
  }
"""


@dataclass(frozen=True, slots=True)
class _Bar:
    label: str
    ours: bool
    ratio: float
    value: str


def draw(results: Results) -> str:
    """Return an SVG with a panel for each measured workload, in light or dark colours."""
    lines: list[str] = []
    y = 78
    for (workload, metric), title in _PANELS.items():
        bars = list(_bars(results, workload, metric))
        if bars:
            lines += _panel(title, bars, y)
            y += _ROW * len(bars) + 64
    facts = results.facts
    height = y + 24
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    paper = f'x=".5" y=".5" width="{_WIDTH - 1}" height="{height - 1}" rx="8"'
    whole = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title">',
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" {paper}/>',
        _text(_MARGIN, 28, _TITLE, "title", "title"),
        *_legend(50),
        *lines,
        _text(_MARGIN, height - 32, f"Python {facts['python']}, {facts['cpu']}", "pale"),
        _text(_MARGIN, height - 14, "medians; the client is pinned to one core", "pale"),
        "</svg>\n",
    )
    return "\n".join(whole)


def _legend(y: int) -> Iterator[str]:
    x = _MARGIN
    for kind, text, width in (("ours", "gprochat_anyio", 126), ("theirs", "others", 76)):
        yield f'<rect class="{kind}" x="{x}" y="{y - 10}" width="{_BAR}" height="{_BAR}" rx="2"/>'
        yield _text(x + _BAR + 6, y, text, "")
        x += width
    yield _text(_WIDTH - _MARGIN, y, "less is better", "pale end")


def _bars(results: Results, workload: str, metric: str) -> Iterator[_Bar]:
    baseline = Job(workload, "aiohttp", "asyncio")
    for peer, loop in _BARS:
        job = Job(workload, peer, loop)
        ratio = results.ratio(job, baseline, metric)
        if ratio is not None and (metric == "cpu" or peer in _FEW):
            value = quantity(results.value(job, metric), metric)
            yield _Bar(label(peer, loop), peer.startswith("ours-"), ratio, value)


def _panel(title: str, bars: list[_Bar], y: int) -> Iterator[str]:
    workload, _, metric = title.partition(": ")
    yield _text(_MARGIN, y + 4, workload, "panel")
    yield _text(_MARGIN, y + 21, metric, "")
    top, one = y + 30, _LEFT + _SCALE / _LONGEST
    yield f'<path class="one" d="M{one:.1f} {top - 2}v{_ROW * len(bars) + 4}"/>'
    for bar in bars:
        middle, width = top + _ROW / 2, min(bar.ratio, _LONGEST) / _LONGEST * _SCALE
        kind = "ours" if bar.ours else "theirs"
        yield _text(_LEFT - 8, middle + 4, bar.label, "end" if bar.ours else "pale end")
        yield (
            f'<rect class="{kind}" x="{_LEFT}" y="{middle - _BAR / 2:g}" '
            f'width="{max(width, 1.5):.1f}" height="{_BAR}" rx="2"/>'
        )
        if bar.ratio > _LONGEST:
            cut = _LEFT + _SCALE - 20
            yield (
                f'<path class="cut" d="M{cut} {middle + _BAR / 2 + 2:g}'
                f'l6 -{_BAR + 4}m5 0l-6 {_BAR + 4}"/>'
            )
        number = f"{bar.ratio:.2f}" if bar.ratio < 10 else f"{bar.ratio:.0f}"
        text = f"{number} × ({bar.value})"  # noqa: RUF001
        yield _text(_LEFT + width + 6, middle + 4, text, "" if bar.ours else "pale")
        top += _ROW


def _text(x: float, y: float, text: str, kind: str, name: str = "") -> str:
    identity = f' id="{name}"' if name else ""
    return f'<text{identity} x="{x:g}" y="{y:g}" class="{kind}">{escape(text)}</text>'
