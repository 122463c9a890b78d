"""The process of one measurement: told on its command line, it prints one line of JSON."""

from __future__ import annotations

import json
import sys

import machine
import measure
from workloads import Job


def main() -> None:
    told = json.loads(sys.argv[1])
    machine.pin(told["core"])
    result = measure.run(Job(**told["job"]), told["port"], quick=told["quick"])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
