"""Results of a run: stored as JSON, and evaluated as medians and ratios."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import machine
from workloads import Job


@dataclass(slots=True)
class Results:
    """All measurements of a run, in order.

    :param records: For each measurement, the job's fields and its round, with the costs or an
        `error`.
    :param imports: CPU times of the interpreters of workload F, in seconds, by what they import.
    """

    quick: bool = False
    facts: dict[str, Any] = field(default_factory=machine.facts)
    records: list[dict[str, Any]] = field(default_factory=list)
    imports: dict[str, list[float]] = field(default_factory=dict)

    def add(self, job: Job, turn: int, outcome: dict[str, Any]) -> None:
        self.records.append(asdict(job) | {"round": turn} | outcome)

    def of(self, job: Job, metric: str) -> dict[int, float]:
        """Return a metric by round, without rounds that did not measure it.

        `cpu` and `bytes` are per unit. `wall`, `late` and `first_text` are in seconds.
        `server_share` is the load server's CPU time as a fraction of the wall time.
        """
        return {
            r["round"]: value
            for r in self.records
            if Job(r["workload"], r["peer"], r["loop"]) == job
            if (value := _value(r, metric)) is not None
        }

    def value(self, job: Job, metric: str) -> float | None:
        """Return the median over the rounds, or `None` without measurements."""
        values = self.of(job, metric).values()
        return median(values) if values else None

    def spread(self, job: Job, metric: str) -> float:
        """Return the range of the rounds, as a fraction of their median."""
        values = self.of(job, metric).values()
        return (max(values) - min(values)) / median(values)

    def ratio(self, job: Job, other: Job, metric: str) -> float | None:
        """Return the median over the rounds of the ratio within a round, or `None` without any."""
        ours, theirs = self.of(job, metric), self.of(other, metric)
        ratios = [ours[turn] / theirs[turn] for turn in ours.keys() & theirs.keys()]
        return median(ratios) if ratios else None

    def error(self, job: Job) -> str | None:
        """Return the error of a job that has no numbers."""
        for r in self.records:
            if Job(r["workload"], r["peer"], r["loop"]) == job and "error" in r:
                return str(r["error"])
        return None

    def import_cost(self, name: str) -> float | None:
        """Return an import's CPU time above a bare interpreter's, in seconds, or `None`."""
        if name not in self.imports:
            return None
        return median(self.imports[name]) - median(self.imports["interpreter"])

    def save(self, path: Path) -> None:
        """Write the results as JSON, one record per line, so that `diff` can compare two runs."""
        whole = asdict(self)
        records = ",\n  ".join(json.dumps(r) for r in whole.pop("records"))
        rest = json.dumps(whole, indent=1).removesuffix("\n}")
        path.write_text(f'{rest},\n "records": [\n  {records}\n ]\n}}\n')

    @classmethod
    def read(cls, path: Path) -> Results:
        return cls(**json.loads(path.read_text()))


def _value(record: dict[str, Any], metric: str) -> float | None:
    if "error" in record:
        return None
    if metric == "server_share":
        return float(record["server_cpu"] / record["wall"])
    if metric == "cpu":
        return float(record["cpu"] / record["units"])
    return float(record[metric]) if metric in record else None
