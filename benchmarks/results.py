"""What a run has measured: kept as JSON, asked for medians and for ratios."""

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
    """All measurements of a run, in the order in which they were made.

    :param records: a job's fields and its round, with what it cost or its `error`
    :param imports: seconds of CPU of each interpreter of workload F, by what it imports
    """

    quick: bool = False
    facts: dict[str, Any] = field(default_factory=machine.facts)
    records: list[dict[str, Any]] = field(default_factory=list)
    imports: dict[str, list[float]] = field(default_factory=dict)

    def add(self, job: Job, turn: int, outcome: dict[str, Any]) -> None:
        self.records.append(asdict(job) | {"round": turn} | outcome)

    def of(self, job: Job, metric: str) -> dict[int, float]:
        """Return a metric by round, without the rounds that did not measure it.

        `cpu` and `bytes` are for one unit; `wall`, `late` and `first_text` are seconds;
        `server_share` is the part of the wall time that the load server computed.
        """
        return {
            r["round"]: value
            for r in self.records
            if Job(r["workload"], r["peer"], r["loop"]) == job
            if (value := _value(r, metric)) is not None
        }

    def value(self, job: Job, metric: str) -> float | None:
        """The median over the rounds."""
        values = self.of(job, metric).values()
        return median(values) if values else None

    def spread(self, job: Job, metric: str) -> float:
        """How far the rounds are apart: the widest distance, as a part of the median."""
        values = self.of(job, metric).values()
        return (max(values) - min(values)) / median(values)

    def ratio(self, job: Job, other: Job, metric: str) -> float | None:
        """The median over the rounds of what one cost against the other in the same round."""
        ours, theirs = self.of(job, metric), self.of(other, metric)
        ratios = [ours[turn] / theirs[turn] for turn in ours.keys() & theirs.keys()]
        return median(ratios) if ratios else None

    def error(self, job: Job) -> str | None:
        """Why a job has no numbers."""
        for r in self.records:
            if Job(r["workload"], r["peer"], r["loop"]) == job and "error" in r:
                return str(r["error"])
        return None

    def import_cost(self, name: str) -> float | None:
        """Seconds of CPU over those of an interpreter that imports nothing."""
        if name not in self.imports:
            return None
        return median(self.imports[name]) - median(self.imports["interpreter"])

    def save(self, path: Path) -> None:
        """One record a line, so that two runs can be compared by `diff`."""
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
