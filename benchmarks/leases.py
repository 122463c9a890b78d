"""Cost and fairness of a batch's coordinator with many workers.

    python benchmarks/leases.py [--workers 200] [--per-second 2000] [--at-once 5000] [--ray]

This simulates 15 minutes of `LeaseBook`. Workers start one after the other, are lost now and then,
and run again. It then measures a coordinator's renewals in an event loop. With `--ray`, it also
measures those of an actor, in a cluster on this machine.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import anyio

from gprochat_anyio._request.leased_limiter import Demand
from gprochat_anyio.batch._coordinator import Coordinator, Report
from gprochat_anyio.batch._lease_book import RENEW_EVERY, LeaseBook, LeasedLimits
from gprochat_anyio.batch._summary import Tally

_MOST = 64


@dataclass
class Worker:
    """Simulated shard whose demand exceeds its lease."""

    begins: float
    held: LeasedLimits | None = None
    started: float = 0.0
    renewed: float = 0.0

    def renew(self, book: LeaseBook, name: int, now: float) -> None:
        if self.held is not None and self.held.per_second is not None:
            self.started += self.held.per_second * (now - self.renewed)
        running = max((self.held.at_once if self.held else 0) - 1, 0)
        self.renewed = now
        demand = Demand(running, _MOST - running, int(self.started))
        self.held = book.renew(name, demand, self.held, now)


def simulate(count: int, per_second: float, at_once: int, *, seconds: int = 900) -> None:
    chance = random.Random(15)
    book = LeaseBook(at_once, per_second, most=_MOST)
    workers = {name: Worker(chance.uniform(0, 60)) for name in range(count)}
    used, calls, highest, highest_at_once = 0.0, 0, 0.0, 0
    began = time.process_time()
    for second in range(seconds):
        for name, worker in workers.items():
            now = second + name / count
            if now < worker.begins:
                continue
            if chance.random() < 1 / 900:  # lost, and running again half a minute later
                workers[name].held, workers[name].begins = None, now + 30
                continue
            worker.renew(book, name, now)
            calls += 1
        leases = [worker.held for worker in workers.values() if worker.held is not None]
        rate = sum(lease.per_second or 0.0 for lease in leases)
        highest = max(highest, rate)
        highest_at_once = max(highest_at_once, sum(lease.at_once for lease in leases))
        used += rate if second >= 120 else 0
    took = time.process_time() - began
    print(
        f"{count} workers, 15 minutes: {calls / seconds:.0f} calls/s, "
        f"{took / calls * 1e6:.0f} us CPU each; leased at most {highest:.1f} of "
        f"{per_second:g}/s and {highest_at_once} of {at_once} at once, on average "
        f"{used / (seconds - 120) / per_second:.1%} of the rate"
    )


async def measure(count: int, per_second: float, at_once: int) -> None:
    coordinator = Coordinator(at_once, per_second, most=_MOST)
    report = Report(Demand(_MOST - 1, 1, 0))
    rounds = 20
    began = time.process_time()
    for _ in range(rounds):
        for name in range(count):
            lease = await coordinator.renew(name, report)
            report = report._replace(held=lease.limits)
    took = (time.process_time() - began) / (rounds * count)
    print(
        f"a renewal takes the coordinator {took * 1e6:.0f} us CPU, without Ray's call; "
        f"{count} workers: {count / RENEW_EVERY * took:.1%} of a core"
    )


class TimedCoordinator(Coordinator):
    """Coordinator that reports the CPU time of its process."""

    async def cpu_time(self) -> float:
        return time.process_time()


def measure_actor(count: int, per_second: float, at_once: int) -> None:
    import ray

    remote: Any = ray.remote  # its types do not support keyword-only parameters
    ray.init(
        address="local",
        num_cpus=1,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
    )
    try:
        actor = remote(TimedCoordinator).options(num_cpus=0).remote(at_once, per_second, most=_MOST)
        before = ray.get(actor.cpu_time.remote())
        summary = Tally().summary(in_flight=16, elapsed=1.0, paused=0.0)
        report = Report(Demand(_MOST - 1, 1, 0), LeasedLimits(25, 10.0), summary)
        rounds = 20
        began = time.monotonic()
        for _ in range(rounds):
            ray.get([actor.renew.remote(name, report) for name in range(count)])
        took = time.monotonic() - began
        cpu = (ray.get(actor.cpu_time.remote()) - before) / (rounds * count)
        print(
            f"as a Ray actor: {cpu * 1e6:.0f} us CPU for a renewal, at most "
            f"{rounds * count / took:.0f} renewals/s; {count} workers: "
            f"{count / RENEW_EVERY * cpu:.0%} of a core"
        )
    finally:
        ray.shutdown()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add = parser.add_argument
    add("--workers", type=int, default=200, help="number of workers (default 200)")
    add("--per-second", type=float, default=2000.0, help="starts per second (default 2000)")
    add("--at-once", type=int, default=5000, help="concurrent requests (default 5000)")
    add("--ray", action="store_true", help="also measure an actor in a cluster")
    chosen = parser.parse_args()
    simulate(chosen.workers, chosen.per_second, chosen.at_once)
    anyio.run(measure, chosen.workers, chosen.per_second, chosen.at_once)
    if chosen.ray:
        measure_actor(chosen.workers, chosen.per_second, chosen.at_once)
    return 0


if __name__ == "__main__":
    sys.exit(main())
