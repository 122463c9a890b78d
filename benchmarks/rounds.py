"""Rounds of jobs. Each job runs in a fresh process, against a fresh server."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import machine
import server
from results import Results
from workloads import Job

_CHILD = Path(__file__).with_name("child.py")
_LONGEST = 60.0
"""Time after which a job is killed, in seconds."""

_TOO_LONG_TO_REPEAT = 8.0
"""Time above which a job is measured in one round only, in seconds."""


def run(jobs: list[Job], program: Path, results: Results, *, count: int) -> None:
    """Add the results of `count` rounds of all jobs. Print the progress to stderr."""
    left = list(jobs)
    for turn in range(count):
        for number, job in enumerate(tuple(left), 1):
            where = f"round {turn + 1} of {count}, {number} of {len(jobs)}"
            print(f"{where}: {job.workload} {job.peer} {job.loop}", file=sys.stderr, flush=True)
            start = time.monotonic()
            outcome = _in_process(job, program, quick=results.quick)
            took = time.monotonic() - start
            results.add(job, turn, outcome | {"took": round(took, 3)})
            if "error" in outcome:
                print(f"    {outcome['error']}", file=sys.stderr, flush=True)
            if "error" in outcome or took > _TOO_LONG_TO_REPEAT:
                left.remove(job)


def _in_process(job: Job, program: Path, *, quick: bool) -> dict[str, Any]:
    server_core, client_core = machine.cores()
    with server.running(program, core=server_core, lifetime=int(_LONGEST) + 30) as port:
        task = {"core": client_core, "port": port, "quick": quick, "job": asdict(job)}
        command = [sys.executable, str(_CHILD), json.dumps(task)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_LONGEST, check=False
            )
        except subprocess.TimeoutExpired:
            return {"error": f"killed after {_LONGEST:.0f} s"}
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip(" |+-")]
        return {"error": lines[-1].strip(" |") if lines else f"exit status {done.returncode}"}
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome
