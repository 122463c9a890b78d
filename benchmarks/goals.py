"""The goals of the library, as figures: what is compared with what, and how much it may be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from results import Results
from workloads import Job

LOOPS = ("asyncio", "trio")
"""Every goal is one on both."""

_WALL_NOISE = 1.02
"""Replies that come slowly take the site's time, and two runs of one client differ by this."""


@dataclass(frozen=True, slots=True)
class Goal:
    """`peer` may cost at most `most` times what `against` costs in the same workload.

    :param loop_of_other: None for the same loop as ours
    :param tolerance: a factor for measuring noise
    """

    workload: str
    peer: str
    metric: str
    most: float
    against: str = "aiohttp"
    loop_of_other: str | None = "asyncio"
    tolerance: float = 1.0

    def measured(self, results: Results, loop: str) -> float | None:
        other = Job(self.workload, self.against, self.loop_of_other or loop)
        return results.ratio(Job(self.workload, self.peer, loop), other, self.metric)

    def is_met(self, value: float) -> bool:
        return value <= self.most * self.tolerance

    def __str__(self) -> str:
        of = f"of {self.against}'s"
        return f"{self.peer}: {self.metric} at most {self.most:g} {of}"

    def show(self, value: float) -> str:
        return f"{value:.3f}" if self.most < 0.1 else f"{value:.2f}"


class FirstText(Goal):
    """Seconds over a raw socket."""

    __slots__ = ()

    def measured(self, results: Results, loop: str) -> float | None:
        other = Job(self.workload, self.against, "blocking")
        return results.difference(Job(self.workload, self.peer, loop), other, self.metric)

    def __str__(self) -> str:
        return f"{self.peer}: first text at most {self.most * 1e6:.0f} µs after a raw socket's"

    def show(self, value: float) -> str:
        return f"{value * 1e6:.0f} µs"


class Growth(Goal):
    """Against the same peer in another workload, on the same loop."""

    __slots__ = ()

    def measured(self, results: Results, loop: str) -> float | None:
        job, other = Job(self.workload, self.peer, loop), Job(self.against, self.peer, loop)
        return results.ratio(job, other, self.metric)

    def __str__(self) -> str:
        return f"{self.peer}: CPU per reply at most {self.most:g} of that in {self.against}"


class Import(Goal):
    """Seconds of CPU over a bare interpreter."""

    __slots__ = ()

    def measured(self, results: Results, loop: str) -> float | None:  # noqa: ARG002
        return results.import_cost(self.peer)

    def __str__(self) -> str:
        return f"import {self.peer}: at most {self.most * 1e3:.0f} ms of CPU"

    def show(self, value: float) -> str:
        return f"{value * 1e3:.1f} ms"


def _goals() -> Iterator[Goal]:
    for peer in ("ours-ask", "ours-stream"):
        yield Goal("A", peer, "cpu", 0.20)
        yield Goal("A", peer, "cpu", 1 / 40, "httpx", loop_of_other=None)
    yield Goal("B", "ours-ask", "cpu", 0.70)
    yield Goal("B", "ours-stream", "cpu", 0.80)
    at_once = {"ours-ask": 0.85, "ours-stream": 1.0, "ours-fan_out": 1.0}
    for count in (100, 500, 1000, 2000):
        for peer, most in at_once.items():
            yield Goal(f"C-{count}", peer, "cpu", most)
            yield Goal(f"C-{count}", peer, "wall", 1.0, tolerance=_WALL_NOISE)
    for peer in at_once:
        yield Growth("C-2000", peer, "cpu", 1.3, "C-200")
    for peer in at_once:
        yield Goal("M", peer, "bytes", 1.0)
    yield FirstText("D", "ours-stream", "first_text", 50e-6, "raw socket")
    for peer in at_once:
        yield Goal("E", peer, "cpu", 0.6)
        yield Goal("E", peer, "wall", 0.6)
    yield Import("F", "gprochat_anyio", "cpu", 0.025)


GOALS = tuple(_goals())
