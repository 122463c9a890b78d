"""The directive `{benchmark-table}`: the ratios in `benchmarks/results.json`, as a table."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from labels import label
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RESULTS = BENCHMARKS / "results.json"
CLIENTS = (
    ("ours-ask", "asyncio"),
    ("ours-ask", "trio"),
    ("ours-stream", "asyncio"),
    ("ours-stream", "trio"),
    ("aiohttp", "asyncio"),
    ("httpx", "asyncio"),
    ("httpx2", "asyncio"),
    ("openai", "asyncio"),
)

_SECTION = re.compile(r"^## ([A-Z][\w-]*): (.*)\n\n((?:\|.*\n)+)", re.MULTILINE)


def report() -> str:
    """Return the report of `benchmarks/run.py`, as Markdown."""
    return subprocess.run(  # noqa: S603 - our own script
        [sys.executable, str(BENCHMARKS / "run.py"), "--report", str(RESULTS)],
        capture_output=True,
        check=True,
        encoding="utf-8",
    ).stdout


def rows(text: str) -> Iterator[tuple[str, ...]]:
    """Yield the table's rows: a metric of a workload, and each client's ratio or a dash."""
    yield ("", *(label(peer, loop) for peer, loop in CLIENTS))
    for name, title, table in _SECTION.findall(text):
        head, _, *lines = (
            [cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()
        )
        for column in (at for at, cell in enumerate(head) if cell == "of aiohttp's"):
            ratios = [
                next((line[column] for line in lines if tuple(line[:2]) == client), "")
                for client in CLIENTS
            ]
            if any(ratios):
                metric = f"{name}: {title}; {head[column - 1]}"
                yield (metric, *(ratio or "–" for ratio in ratios))  # noqa: RUF001


class BenchmarkTable(SphinxDirective):
    """The directive `{benchmark-table}`."""

    def run(self) -> list[nodes.Node]:
        """Return the table, and a paragraph about the machine."""
        self.env.note_dependency(str(RESULTS))
        text = report()
        machine = text.split("\n\n")[1].replace("\n", " ")
        head, *body = rows(text)
        group = nodes.tgroup("", cols=len(head))
        group += [nodes.colspec("", colwidth=1) for _ in head]
        group += nodes.thead("", _row(head))
        group += nodes.tbody("", *map(_row, body))
        table = nodes.table("", group, classes=["colwidths-auto", "benchmarks"])
        return [table, nodes.paragraph(machine, machine)]


def _row(cells: tuple[str, ...]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph(cell, cell)) for cell in cells))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("benchmark-table", BenchmarkTable)
    return {"parallel_read_safe": True}
