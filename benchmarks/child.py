"""The process of one measurement. Its argument is the job as JSON; it prints the result as JSON."""

from __future__ import annotations

import json
import sys

import machine
import measure
from workloads import Job


def main() -> None:
    task = json.loads(sys.argv[1])
    machine.pin(task["core"])
    result = measure.run(Job(**task["job"]), task["port"], quick=task["quick"])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
