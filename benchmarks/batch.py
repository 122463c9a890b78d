"""Cost of `run_batch` relative to `fan_out`: CPU time per prompt, and memory during a batch.

    python benchmarks/batch.py [--prompts 200000] [--loop trio] [--at-once 64] [--rounds 31]

This starts the load server on one core and measures on the other. Each prompt gets 10 chunks of 16
bytes in one write. The goal is a ratio of at most 1.15. It is the median of many short rounds that
alternate between both, so that other work on the machine disturbs both alike.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import loops
import machine
import server
from wire import Shape

from gprochat_anyio import Client, Failed, fan_out
from gprochat_anyio.batch import BatchSummary, run_batch

_PROMPT = Shape(10, per_write=10).prompt
_ROUND = 1000
_MIB = 1024 * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add = parser.add_argument
    add("--prompts", type=int, default=20_000, help="size of the long batch (default 20,000)")
    add(
        "--loop",
        choices=["asyncio", "uvloop", "trio"],
        default="trio",
        help="event loop (default trio)",
    )
    add("--at-once", type=int, default=64, help="number of prompts in flight (default 64)")
    add("--rounds", type=int, default=31, help="number of rounds of 1,000 prompts (default 31)")
    chosen = parser.parse_args()
    server_core, client_core = machine.cores()
    with (
        tempfile.TemporaryDirectory(prefix="gprochat-bench-") as folder,
        server.built() as program,
        server.running(program, core=server_core, lifetime=1800) as port,
    ):
        machine.pin(client_core)
        bench = Bench(f"http://127.0.0.1:{port}", Path(folder), chosen.at_once)

        async def measure() -> None:
            await bench.fan_out(500)
            await bench.batch(500)
            ratios = []
            for _ in range(chosen.rounds):
                fanned = await bench.fan_out(_ROUND)
                batched = await bench.batch(_ROUND)
                ratios.append((batched / fanned, fanned, batched))
            ratio, fanned, batched = sorted(ratios)[len(ratios) // 2]
            print(
                f"CPU of one prompt: fan_out {fanned * 1e6:.0f} us, "
                f"run_batch {batched * 1e6:.0f} us, ratio {ratio:.2f} "
                f"(median; {min(ratios)[0]:.2f} to {max(ratios)[0]:.2f})"
            )
            began = time.monotonic()
            cost = await bench.batch(chosen.prompts, report=True)
            took = time.monotonic() - began
            print(f"{chosen.prompts:,} prompts: {cost * 1e6:.0f} us CPU each, {took:.0f} s in all")
            began = time.process_time()
            await bench.batch(chosen.prompts, resume=True, report=True)
            took = time.process_time() - began
            print(f"resumed with nothing to do: {took / chosen.prompts * 1e6:.0f} us CPU a line")

        loops.run(chosen.loop, measure)
    return 0


class Bench:
    """Measurements of both functions with the same prompts."""

    def __init__(self, url: str, folder: Path, at_once: int) -> None:
        self._url = url
        self._source, self._sink = folder / "prompts.jsonl", folder / "replies.jsonl"
        self._at_once = at_once

    async def fan_out(self, count: int) -> float:
        """Return the CPU time per prompt, in seconds."""
        async with Client(self._url, trust_env=False) as client:
            began = time.process_time()
            prompts = (f"{_PROMPT} number={number}" for number in range(count))
            async with fan_out(client, prompts, max_at_once=self._at_once) as events:
                async for event in events:
                    assert not isinstance(event, Failed), event
            return (time.process_time() - began) / count

    async def batch(self, count: int, *, report: bool = False, resume: bool = False) -> float:
        """Return the CPU time per prompt, in seconds, including the reading and writing of files.

        :param report: Whether to print the memory in use.
        :param resume: Whether the output already has a line for each prompt.
        """
        if not resume:
            self._sink.unlink(missing_ok=True)
            with self._source.open("w") as file:
                file.writelines(_lines(count))
        seen: dict[int, int] = {}

        def watch(summary: BatchSummary) -> None:
            share = summary.done * 10 // count
            seen.setdefault(share, machine.resident_bytes())

        async with Client(self._url, trust_env=False) as client:
            began = time.process_time()
            summary = await run_batch(
                client,
                self._source,
                self._sink,
                max_at_once=self._at_once,
                on_progress=watch if report else None,
            )
            cost = (time.process_time() - began) / count
        assert summary.all_answered, summary
        if report:
            seen[10] = machine.resident_bytes()
            first = next(share for share in sorted(seen) if share)
            print(
                f"RSS at {first * 10} %: {seen[first] / _MIB:.1f} MiB, "
                f"at 100 %: {seen[10] / _MIB:.1f} MiB"
            )
        return cost


def _lines(count: int) -> Iterator[str]:
    for number in range(count):
        yield json.dumps({"prompt": f"{_PROMPT} number={number}", "id": number}) + "\n"


if __name__ == "__main__":
    sys.exit(main())
