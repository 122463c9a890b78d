"""The workloads, and the peers that take part in each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import peers
from wire import Shape

_METRICS = {"C": ("late", "wall"), "M": ("bytes",), "D": ("first_text",), "E": ("wall",)}
"""Metrics that are compared besides CPU time, by kind of workload."""

_OVER_EVENTS = "S-"

_NAMES_OF_METRICS = {
    "wall": "wall time",
    "late": "p99 lateness",
    "bytes": "memory each",
    "first_text": "first text",
}


@dataclass(frozen=True, slots=True)
class Workload:
    """Workload that each of its peers is measured with.

    :param name: The letter of the workload's kind, then a suffix for its variant. The prefix `S-`
        means that the replies are OpenAI's server-sent events.
    :param unit: The unit that the cost is divided by.
    :param count: The number of replies.
    :param quick_count: The number of replies in a quick run, if it differs.
    :param all_open: Whether all replies must be open at the same time.
    :param loops: The event loops that it is measured on. `None` for all.
    """

    name: str
    title: str
    unit: str
    shape: Shape
    count: int
    quick_count: int | None = None
    all_open: bool = False
    loops: tuple[str, ...] | None = None

    @property
    def kind(self) -> str:
        return self.name.removeprefix(_OVER_EVENTS)[0]

    @property
    def over_events(self) -> bool:
        """True if the replies are server-sent events of OpenAI's API."""
        return self.name.startswith(_OVER_EVENTS)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The compared metrics. CPU time comes first."""
        return ("cpu", *_METRICS.get(self.kind, ()))

    def name_of(self, metric: str) -> str:
        """Return the metric's name in tables and goals."""
        if metric == "wall" and self.kind == "E":
            return "time to last close"
        return f"CPU per {self.unit}" if metric == "cpu" else _NAMES_OF_METRICS[metric]

    def replies(self, *, quick: bool) -> int:
        return (self.quick_count or self.count) if quick else self.count


@dataclass(frozen=True, slots=True)
class Job:
    """One measurement, in a fresh process and against a fresh server."""

    workload: str
    peer: str
    loop: str


_TOKEN = 5
"""Number of characters of a token, including its space."""

_SLOWLY = Shape(chunks=50, gap_ms=10, stamped=True)
_SPARSELY = Shape(chunks=10, gap_ms=1000, stamped=True)
_HELD = Shape(chunks=2, hold=True)
_SPLIT = Shape(chunks=2, gap_ms=1)
_AT_ONCE = (100, 200, 500, 1000, 2000)
_AT_ONCE_SPARSE = {"C-2000-sparse": 2000, "C-10000": 10_000}
"""Numbers of replies at the same pace, to measure the influence of the number alone. A client opens
10,000 in less than the 9 s that they last, and a core handles 10,000 chunks in a second."""

_ALL = (
    Workload("A", "100,000 chunks, 512 to a write", "chunk", Shape(100_000, per_write=512), 20, 4),
    Workload(
        "B", "3,000 in turn, 10 chunks in one write", "request", Shape(10, per_write=10), 3000, 500
    ),
    Workload("B2", "1,000 in turn, 10 chunks in 10 writes", "request", Shape(10), 1000),
    *(
        Workload(f"C-{n}", f"{n:,} at once, 50 chunks 10 ms apart", "reply", _SLOWLY, n)
        for n in _AT_ONCE
    ),
    *(
        Workload(
            name,
            f"{n:,} at once, 10 chunks 1 s apart",
            "reply",
            _SPARSELY,
            n,
            all_open=True,
            loops=("asyncio", "trio"),
        )
        for name, n in _AT_ONCE_SPARSE.items()
    ),
    Workload("M", "memory of 1,000 open replies", "open reply", _HELD, 1000, 300),
    Workload("D", "first text, on a warm connection", "request", _SPLIT, 600, 200),
    Workload("D-cold", "first text, on a new one", "request", replace(_SPLIT, close=True), 300),
    Workload("E", "cancelling 500 open replies", "open reply", _HELD, 500),
    Workload(
        "S-A",
        "OpenAI's API, 20,000 tokens, 512 to a write",
        "chunk",
        Shape(20_000, size=_TOKEN, per_write=512),
        100,
        4,
    ),
    Workload(
        "S-B",
        "OpenAI's API, 2,000 in turn, 10 tokens in one write",
        "request",
        Shape(10, size=_TOKEN, per_write=10),
        2000,
        200,
    ),
    Workload("S-C-500", "OpenAI's API, 500 at once, 50 chunks 10 ms apart", "reply", _SLOWLY, 500),
)
WORKLOADS = {workload.name: workload for workload in _ALL}

_IN_QUICK = {"A", "B", "C-100", "C-500", "M", "D", "E", "F", "S-A", "S-B"}
_MOST_OF_SLOW_IN_QUICK = 100


NAMES = (*WORKLOADS, "F")
"""Names of all workloads. F has no peers; imports.py measures it."""

FAMILIES = ("C", "S")
"""Names that select all workloads that begin with them."""


def named(names: set[str], *, quick: bool) -> set[str]:
    """Return the workloads of some names and families. Without names, return all workloads."""
    if not names:
        return _IN_QUICK if quick else set(NAMES)
    families = tuple(f"{name}-" for name in names if name in FAMILIES)
    return {name for name in NAMES if name in names or name.startswith(families)}


def jobs(chosen: set[str], names: set[str], loops: set[str], *, quick: bool) -> list[Job]:
    """Return the jobs of one round, in order. The peers of a workload follow each other."""
    return [
        Job(workload.name, name, loop)
        for workload in WORKLOADS.values()
        if workload.name in chosen
        for name, entry in peers.PEERS.items()
        if name in names and _takes_part(workload, entry, quick=quick)
        for loop in entry.loops
        if loop in (workload.loops or entry.loops)
        if loop in loops or len(entry.loops) == 1
    ]


def _takes_part(workload: Workload, entry: peers.Entry, *, quick: bool) -> bool:
    fits = entry.over_events if workload.over_events else workload.kind in entry.workloads
    if not fits or (quick and not entry.in_quick):
        return False
    most = _MOST_OF_SLOW_IN_QUICK if quick and entry.is_slow else entry.most_at_once
    return workload.kind != "C" or workload.count <= most
