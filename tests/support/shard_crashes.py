"""Shards of a batch, each killed at many random moments and started again, then merged.

`PYTHONPATH=tests python -m support.shard_crashes --prompts 20000 --shards 4 --kills 25`
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gprochat_anyio import Message
from gprochat_anyio.batch import MergeSummary, merge_shards
from gprochat_anyio.batch._keys import key_of_messages
from gprochat_anyio.testing import Hang, Pause, Refuse, Request, Say, Script
from support.batch_site import BatchSite, batch_site_in_thread
from support.raw_site import BOUND, environment

# It imports everything once, and forks a process for each life, within milliseconds.
FORKER = """
import json, os, sys
from functools import partial
import gprochat_anyio.batch._journal as journal
from gprochat_anyio import Client
from gprochat_anyio.batch import run_shard
journal.TICK = 0.01
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        arguments = json.loads(line)
        make_client = partial(Client, arguments.pop("url"), trust_env=False)
        run_shard(make_client, **arguments, sync_every=0.02)
        os._exit(0)
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


@dataclass
class Crashes:
    """The results of a run."""

    killed: int = 0
    """Number of lives that SIGKILL has ended."""
    grown: int = 0
    """Number of killed lives that have added lines."""
    lost: int = 0
    """Number of lines that were lost later."""
    kept: int = 0
    """Number of prompts whose lines were complete before the last life of their shard."""
    asked_again: int = 0
    """Number of these prompts that were sent again."""
    asked: int = 0
    """Number of requests to the site."""
    lines: Counter[str] = field(default_factory=Counter)
    """Number of lines for each prompt in the merged file."""
    wanted: Counter[str] = field(default_factory=Counter)
    """The expected number of lines for each prompt."""
    order: list[int] = field(default_factory=list)
    """Indexes of the lines, in the order of the merged file."""
    merged: MergeSummary | None = None


class CountingSite(BatchSite):
    """A site that counts requests by shard.

    :param shards: The shard of each prompt.
    :param bound: Timeout of every wait, in seconds.
    """

    def __init__(self, shards: dict[str, int], bound: float) -> None:
        super().__init__(answer)
        self.bound = bound
        self.shards = shards
        self.by_shard: Counter[int] = Counter()
        self.limits: dict[int, float] = {}
        self.more = threading.Condition()

    def __call__(self, request: Request) -> Script:
        shard = self.shards[request.prompt]
        with self.more:
            self.by_shard[shard] += 1
            beyond = self.by_shard[shard] > self.limits[shard]
            self.more.notify_all()
        script = super().__call__(request)
        return Hang() if beyond else script  # so that no life ends by itself

    def wait_for_shard(self, shard: int, count: int) -> None:
        with self.more:
            assert self.more.wait_for(lambda: self.by_shard[shard] >= count, self.bound)


def answer(request: Request) -> Script:
    pause = Pause(0.01)  # so that every kill interrupts many requests
    fails = request.prompt.endswith("7")
    return pause, Refuse(400, "no") if fails else Say(f"re: {request.prompt}")


def crash(
    folder: Path, *, prompts: int, shards: int, kills: int, seed: int, bound: float = BOUND
) -> Crashes:
    """Kill each shard a number of times, let it end, and merge."""
    chance = random.Random(seed)
    given = [f"prompt {number % (prompts * 9 // 10)}" for number in range(prompts)]
    chance.shuffle(given)  # a tenth of them twice
    source, out = folder / "in.jsonl", folder / "out"
    source.write_text("".join(json.dumps({"prompt": p, "id": p}) + "\n" for p in given))
    crashes = Crashes(wanted=Counter(given))
    site = CountingSite({}, bound)
    with batch_site_in_thread(site=site):
        for prompt in crashes.wanted:
            key = key_of_messages(site.url, [Message("user", prompt)])
            site.shards[prompt] = int(key, 16) % shards
        lives = [
            _Lives(site, source, out, crashes.wanted, shard=shard, of=shards, kills=kills)
            for shard in range(shards)
        ]
        with ThreadPoolExecutor(shards) as pool:
            for ended in [pool.submit(one.run, chance.randrange(1 << 30)) for one in lives]:
                ended.result()
        asked = site.counts
    crashes.asked = asked.total()
    for one in lives:
        crashes.killed += one.killed
        crashes.grown += one.grown
        crashes.lost += one.lost
        crashes.kept += len(one.asked_when_kept)
        crashes.asked_again += sum(asked[p] > n for p, n in one.asked_when_kept.items())
    merge_shards(out, folder / "merged.jsonl")
    crashes.lines = _whole_lines(folder / "merged.jsonl")
    crashes.merged = merge_shards(out, folder / "ordered.jsonl", ordered=True)
    with (folder / "ordered.jsonl").open("rb") as file:
        crashes.order = [json.loads(line)["index"] for line in file]
    return crashes


class _Lives:
    """The lives of one shard."""

    def __init__(
        self,
        site: CountingSite,
        source: Path,
        out: Path,
        wanted: Counter[str],
        *,
        shard: int,
        of: int,
        kills: int,
    ) -> None:
        arguments = {"source": str(source), "folder": str(out), "shard": shard, "of": of}
        self._line = json.dumps({"url": site.url, **arguments}).encode() + b"\n"
        self._part = out / f"part-{shard:05}-of-{of:05}.jsonl"
        self._site, self._wanted, self._shard, self._kills = site, wanted, shard, kills
        mine = sum(n for p, n in wanted.items() if site.shards[p] == shard)
        self._most = mine * 4 // (5 * kills)
        self._kept: Counter[str] = Counter()
        self.killed = self.grown = self.lost = 0
        self.asked_when_kept: dict[str, int] = {}

    def run(self, seed: int) -> None:
        chance = random.Random(seed)
        with _forker() as (send, receive):
            for _ in range(self._kills):
                count = self._site.by_shard[self._shard] + chance.randint(0, self._most)
                self._site.limits[self._shard] = count + self._most // 4
                send(self._line)
                pid = int(receive())
                try:
                    self._site.wait_for_shard(self._shard, count)
                    time.sleep(chance.uniform(0, 0.02))  # a random moment
                finally:
                    os.kill(pid, signal.SIGKILL)
                self.killed += int(receive()) == signal.SIGKILL
                self._look()
            self._site.limits[self._shard] = math.inf
            send(self._line)
            receive()
            assert int(receive()) == 0

    def _look(self) -> None:
        """Compare the part of a dead process with its earlier content."""
        now = _whole_lines(self._part)
        self.lost += (self._kept - now).total()
        self.grown += now != self._kept
        asked = self._site.counts
        for prompt, count in now.items():
            if count == self._wanted[prompt]:
                self.asked_when_kept.setdefault(prompt, asked[prompt])
        self._kept = now


@contextmanager
def _forker() -> Iterator[tuple[Callable[[bytes], None], Callable[[], bytes]]]:
    command = [sys.executable, "-W", "error", "-c", FORKER]
    pipe = subprocess.PIPE
    with subprocess.Popen(  # noqa: S603 - as above
        command, stdin=pipe, stdout=pipe, env=environment()
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def send(line: bytes) -> None:
            stdin.write(line)
            stdin.flush()

        try:
            yield send, stdout.readline
        except BaseException:
            process.kill()
            raise
        stdin.close()


def _whole_lines(file: Path) -> Counter[str]:
    """Return the number of complete lines for each prompt in a file."""
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    return Counter(line["id"] for line in map(json.loads, lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("prompts", 20000), ("shards", 4), ("kills", 25), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GPROCHAT_DATA"] = folder  # which `environment` passes on
        found = crash(Path(folder), **vars(parser.parse_args()), bound=600)
    print(  # noqa: T201 - the command's output
        f"{found.killed} killed, {found.grown} of them with new lines; {found.asked} requests for "
        f"{found.wanted.total()} prompts; {found.lost} lines lost; {found.kept} prompts had all "
        f"lines early, {found.asked_again} of them asked again; merged {found.merged}; "
        f"one line each: {found.lines == found.wanted}; "
        f"in order: {found.order == list(range(found.wanted.total()))}; "
        f"{time.monotonic() - began:.0f} s"
    )


if __name__ == "__main__":
    main()
