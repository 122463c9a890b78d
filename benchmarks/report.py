"""The report: tables of costs, goals that are met or missed, and doubts about the run."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

import goals
from results import Results
from workloads import WORKLOADS, Job, Workload

_BUSY_SERVER = 0.85
_WIDE_SPREAD = 0.20
_LOADED = 0.5

_IMPORT_HEAD = ("import", "CPU over a bare interpreter")

RATIO = "of aiohttp's"
"""Head of a column of ratios, which follows the column of their metric."""


def render(results: Results) -> str:
    """Return the report as Markdown, with tables that are aligned for a terminal."""
    parts = [_title(results)]
    for workload in WORKLOADS.values():
        if lines := list(_lines(results, workload)):
            title = f"{workload.name}: {workload.title}"
            if results.quick and workload.quick_count:
                title += f" (quick: {workload.quick_count:,})"
            parts.append(f"## {title}\n\n{_table(_head(workload), lines)}")
    if results.imports:
        cost = {n: results.import_cost(n) or 0.0 for n in results.imports if n != "interpreter"}
        lines = [(name, f"{seconds * 1e3:.1f} ms") for name, seconds in cost.items()]
        parts.append(f"## F: import in a fresh interpreter\n\n{_table(_IMPORT_HEAD, lines)}")
    if verdicts := list(_verdicts(results)):
        head = ("", "goal", *goals.LOOPS)
        parts.append(f"## Goals\n\n{_table(head, verdicts)}")
    if doubts := list(_doubts(results)):
        parts.append("## Doubts about this run\n\n" + "\n".join(f"- {d}" for d in doubts))
    return "\n\n".join(parts) + "\n"


def missed(results: Results) -> int:
    """Return the number of goals that were measured and missed."""
    return sum("✗" in cell for line in _verdicts(results) for cell in line)


def _title(results: Results) -> str:
    facts = results.facts
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    rounds = 1 + max((r["round"] for r in results.records), default=0)
    return (
        f"# Benchmarks{' (quick)' if results.quick else ''}\n\n"
        f"Python {facts['python']}, {facts['cpu']}, {facts['cores']} cores, {facts['platform']}; "
        f"{rounds} rounds, medians.\n{packages}"
    )


def _jobs(results: Results, workload: str) -> list[Job]:
    found = {Job(r["workload"], r["peer"], r["loop"]): None for r in results.records}
    return [job for job in found if job.workload == workload]


def _head(workload: Workload) -> tuple[str, ...]:
    measured: list[str] = []
    for metric in workload.metrics:
        measured += (workload.name_of(metric), RATIO)
    return ("peer", "loop", *measured, "server's CPU", "spread")


def _lines(results: Results, workload: Workload) -> Iterator[tuple[str, ...]]:
    for job in _jobs(results, workload.name):
        if results.value(job, "cpu") is None:
            yield (job.peer, job.loop, "—", *("",) * (len(_head(workload)) - 3))
            continue
        yield (
            job.peer,
            job.loop,
            *_measured(results, workload, job),
            f"{results.value(job, 'server_share'):.0%}",
            f"{results.spread(job, 'cpu'):.0%}",
        )


def _measured(results: Results, workload: Workload, job: Job) -> Iterator[str]:
    baseline = Job(workload.name, "aiohttp", "asyncio")
    for metric in workload.metrics:
        value, ratio = results.value(job, metric), results.ratio(job, baseline, metric)
        yield quantity(value, metric)
        yield "" if ratio is None else f"{ratio:.2f}"


def _verdicts(results: Results) -> Iterator[tuple[str, ...]]:
    for goal in goals.GOALS:
        values = [goal.measured(results, loop) for loop in goals.LOOPS]
        if any(value is not None for value in values):
            marks = map(_mark, (goal, goal), values, goals.LOOPS)
            yield (goal.workload, str(goal), *marks)


def _mark(goal: goals.Goal, value: float | None, loop: str) -> str:
    if value is None:
        return "—"
    return f"{'✓' if goal.is_met(value, loop) else '✗'} {goal.show(value)}"


def _doubts(results: Results) -> Iterator[str]:
    facts = results.facts
    if facts["cores"] < 2:
        yield "one core only: the load server and the client competed for it"
    if facts["load_at_start"] > _LOADED:
        yield f"the machine was busy with other work: load {facts['load_at_start']:.1f}"
    if results.quick:
        yield "a quick run shows that everything works, not how fast it is"
    for workload in WORKLOADS.values():
        for job in _jobs(results, workload.name):
            where = f"{job.workload}, {job.peer} on {job.loop}"
            if results.value(job, "cpu") is None:
                yield f"{where}: no numbers; {results.error(job)}"
                continue
            share = results.value(job, "server_share") or 0.0
            if share > _BUSY_SERVER and job.peer != "floor":
                yield f"{where}: the load server was busy for {share:.0%} of the time"
            open_ = results.value(job, "most_open")
            if workload.all_open and open_ is not None and open_ < workload.count:
                yield f"{where}: at most {open_:,.0f} replies were open at the same time"
            if (spread := results.spread(job, "cpu")) > _WIDE_SPREAD:
                yield f"{where}: the rounds differ by {spread:.0%}"


def quantity(value: float | None, metric: str) -> str:
    """Return the value of a metric with its unit, or an empty string if it was not measured."""
    if metric == "bytes" and value is not None:
        return f"{value / 1024:.1f} KiB"
    return seconds(value)


def seconds(value: float | None) -> str:
    """Return a time with about three digits and a suitable unit."""
    if value is None:
        return ""
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if (scaled := abs(value) * factor) >= 1:
            digits = 2 if scaled < 10 else 1 if scaled < 100 else 0
            return f"{value * factor:.{digits}f} {unit}"
    digits = 2 if abs(value) < 1e-5 else 0
    return f"{value * 1e6:.{digits}f} µs"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns. Numbers are aligned to the right."""
    columns = list(zip(head, *lines, strict=True))
    widths = [max(3, *(_width(cell) for cell in column)) for column in columns]
    right = [any(c[:1].isdigit() for c in column[1:]) for column in columns]

    def row(cells: Sequence[str]) -> str:
        padded = (
            " " * (w - _width(c)) + c if r else c + " " * (w - _width(c))
            for c, w, r in zip(cells, widths, right, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = ("-" * (w - 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True))
    return "\n".join([row(head), f"| {' | '.join(rule)} |", *map(row, lines)])


def _width(text: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text)
