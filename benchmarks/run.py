"""Benchmarks of gprochat_anyio and its peers. See benchmarks/README.md."""

from __future__ import annotations

import argparse
import os
import sys
import time
from cProfile import Profile
from pathlib import Path
from pstats import SortKey, Stats

import imports
import machine
import measure
import peers
import picture
import report
import rounds
import server
from results import Results
from workloads import FAMILIES, NAMES, WORKLOADS, Job, jobs, named

_HERE = Path(__file__).parent


def main() -> int:
    chosen = _arguments()
    if chosen.report:
        results = Results.read(chosen.report)
        print(report.render(results))
        if chosen.svg:
            chosen.svg.write_text(picture.draw(results))
        return 0
    try:
        with server.built() as program:
            if chosen.one:
                return _one(Job(*chosen.one), program, chosen)
            return _all(program, chosen)
    except server.NoCompilerError as error:
        print(error, file=sys.stderr)
        return 2


def _all(program: Path, chosen: argparse.Namespace) -> int:
    start = time.monotonic()
    results = Results(quick=chosen.quick)
    names = {name for name in chosen.peers if not peers.is_missing(name)}
    for name in sorted(chosen.peers - names):
        print(f"{name}: left out, {peers.PEERS[name].needs} is missing", file=sys.stderr)
    workloads = named(chosen.workloads, quick=chosen.quick)
    plan = jobs(workloads, names, chosen.loops, quick=chosen.quick)
    count = chosen.rounds or (1 if chosen.quick else 3)
    if "F" in workloads:
        results.imports = imports.measure(5 if chosen.quick else 15)
    try:
        rounds.run(plan, program, results, count=count)
    except KeyboardInterrupt:
        print("interrupted; the report has the measurements so far", file=sys.stderr)
    print(report.render(results))
    print(f"This took {time.monotonic() - start:.0f} s.", file=sys.stderr)
    if chosen.json:
        results.save(chosen.json)
    if chosen.svg:
        chosen.svg.write_text(picture.draw(results))
    return 1 if chosen.strict and report.missed(results) else 0


def _one(job: Job, program: Path, chosen: argparse.Namespace) -> int:
    """Run one job in this process, where a profiler can see it."""
    server_core, client_core = machine.cores()
    profile = Profile() if chosen.profile else None
    with server.running(program, core=server_core, lifetime=600) as port:
        machine.pin(client_core)
        cost = measure.run(job, port, quick=chosen.quick, profile=profile)
    for name, value in cost.items():
        print(f"{name:12} {value:.6g}")
    per_unit = report.seconds(cost["cpu"] / cost["units"])
    print(f"CPU of one {WORKLOADS[job.workload].unit}: {per_unit}")
    if profile is not None:
        profile.dump_stats(chosen.profile)
        Stats(profile).sort_stats(SortKey.TIME).print_stats(chosen.lines)
        print(f"saved; to view it: python -m pstats {chosen.profile}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    everything = {loop for entry in peers.PEERS.values() for loop in entry.loops}
    add = parser.add_argument
    add(
        "--quick",
        action="store_true",
        help="only check that it works, with fewer replies and peers",
    )
    add("--rounds", type=int, help="number of rounds (default 3; with --quick 1)")
    add(
        "--workloads",
        type=_list,
        default=set(),
        metavar="A,B,C-1000",
        help=f"measure only these of {', '.join(NAMES)}; C or S selects all that begin with it",
    )
    add(
        "--peers",
        type=_list,
        default=set(peers.PEERS),
        metavar="ours-ask,aiohttp",
        help=f"measure only these of {', '.join(peers.PEERS)}",
    )
    add(
        "--loops",
        type=_list,
        default=everything,
        metavar="asyncio,trio",
        help="measure only on these event loops; peers that support one loop are always measured",
    )
    add("--json", type=Path, help="write the numbers to this file (full run: results.json)")
    add("--svg", type=Path, help="draw the picture to this file (full run: results.svg)")
    add("--report", type=Path, metavar="JSON", help="show the numbers of a file; measure nothing")
    add("--strict", action="store_true", help="exit status 1 if a goal is missed")
    add(
        "--one",
        nargs=3,
        metavar=("WORKLOAD", "PEER", "LOOP"),
        help="run a single measurement in this process, for profilers: "
        "py-spy record -o out.svg -- python benchmarks/run.py --one B ours-ask trio",
    )
    add("--profile", type=Path, metavar="OUT.PROF", help="with --one: profile it with cProfile")
    add("--lines", type=int, default=40, help="with --profile: number of functions to show")
    chosen = parser.parse_args()
    whole = not (chosen.quick or chosen.workloads or chosen.one or chosen.report)
    if whole and chosen.peers == set(peers.PEERS) and chosen.loops == everything:
        chosen.json = chosen.json or _HERE / "results.json"
        chosen.svg = chosen.svg or _HERE / "results.svg"
    for name in chosen.peers - peers.PEERS.keys():
        parser.error(f"unknown peer {name!r}; choose from {', '.join(peers.PEERS)}")
    for name in chosen.workloads - {*NAMES, *FAMILIES}:
        parser.error(f"unknown workload {name!r}; choose from {', '.join(NAMES)}")
    for name in chosen.loops - everything:
        parser.error(f"unknown loop {name!r}; choose from {', '.join(sorted(everything))}")
    if chosen.one and (chosen.one[0] not in WORKLOADS or chosen.one[1] not in peers.PEERS):
        parser.error(f"--one {chosen.one[0]} {chosen.one[1]}: unknown workload or peer")
    return chosen


def _list(text: str) -> set[str]:
    return set(text.split(","))


if __name__ == "__main__":
    if peers.is_missing("ours-ask"):
        sys.path.insert(0, str(_HERE.parent))
        os.environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, (str(_HERE.parent), os.environ.get("PYTHONPATH")))
        )
    sys.exit(main())
