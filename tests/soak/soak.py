"""Soak run: thousands of requests with random faults and random cancellations must not leak.

`python tests/soak/soak.py --seconds 60 --seed 1` runs on each event loop, in a process of its own;
`nox -s soak` runs for minutes. It fails if descriptors, tasks or slots are left at the end, if
memory has grown, or if an exception other than the library's own was raised.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import httpx
from anyio.lowlevel import checkpoint

from gprochat_anyio import Client, GPROChatError, Retry, Timeouts, fan_out, gather, race
from gprochat_anyio._request.chat_client import opener_of

WORKERS = 40
CONNECTIONS = 60  # sometimes fewer than the concurrent requests
GROWTH = 8 * 2**20
"""Maximum growth of the process since the first third of the run, in bytes."""


class _OwnError(Exception):
    """An exception of the caller's own block."""


class Soak:
    """Workers that send requests in all ways, with random cancellations.

    :param url: The URL of the faulty site.
    :param until: The time of the last start, by the event loop's clock.
    """

    def __init__(self, url: str, chance: random.Random, until: float, *, native: bool) -> None:
        self.chance = chance
        self.counts: Counter[str] = Counter()
        self._url = url
        self._until = until
        self._native = native
        retry = Retry(attempts=2, backoff=0.01)
        limits = Timeouts(connect=1, first_chunk=0.3, idle=0.3, total=2)
        self.client = Client(url, retry=retry, timeouts=limits, max_connections=CONNECTIONS)
        self.ways: list[Callable[[], Awaitable[object]]] = [
            self.ask,
            self.stream,
            self.left,
            self.stopped,
            self.stream_to,
            self.fan_out,
            self.race,
            self.gather,
        ]

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(WORKERS):
                tasks.start_soon(self._work)

    async def _work(self) -> None:
        while anyio.current_time() < self._until:
            way = self.chance.choice(self.ways)
            self.counts[way.__name__] += 1
            await self._cancelled(lambda way=way: self._tried(way))  # type: ignore[misc]

    async def _tried(self, way: Callable[[], Awaitable[object]]) -> None:
        try:
            await way()
        except GPROChatError as error:
            self.counts[f"error: {type(error).__name__}"] += 1
        except _OwnError:
            self.counts["left by an exception"] += 1
        else:
            self.counts["ended well"] += 1

    async def _cancelled(self, operation: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run the operation. In three of five runs, cancel it in a random way."""
        after = self.chance.random() ** 2 / 10
        kind = self.chance.choice(("none", "none", "scope", "native", "both"))
        if kind == "none":
            await operation()
            return
        if not self._native:
            kind = "scope"
        scope = anyio.CancelScope(deadline=anyio.current_time() + after)

        async def scoped() -> None:
            with scope:
                await operation()

        if kind == "scope":
            await scoped()
            cancelled = scope.cancelled_caught
        else:
            task = asyncio.create_task(scoped() if kind == "both" else operation())
            await asyncio.wait([task], timeout=after)
            task.cancel()
            await asyncio.wait([task])
            cancelled = task.cancelled()
            if not cancelled:
                task.result()
        self.counts[f"cancelled by {kind}" if cancelled else "too late to cancel"] += 1

    async def ask(self) -> None:
        total = self.chance.choice((2.0, 2.0, 0.0, 0.01, 0.05))
        await self.client.ask("hello", timeouts=Timeouts(total=total))

    async def stream(self) -> None:
        async with self.client.stream("hello") as chunks:
            assert await chunks.read()

    async def left(self) -> None:
        async with self.client.stream("hello") as chunks:
            async for _ in chunks:
                if self.chance.random() < 0.3:
                    break
                if self.chance.random() < 0.1:
                    raise _OwnError

    async def stopped(self) -> None:
        async with self.client.stream("hello") as chunks:
            async for _ in chunks:
                if self.chance.random() < 0.3:
                    chunks.stop()

    async def stream_to(self) -> None:
        send, receive = anyio.create_memory_object_stream[str](2)
        failure: list[GPROChatError] = []

        async def forward() -> None:
            try:
                await self.client.stream_to("hello", send)
            except GPROChatError as error:
                failure.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(forward)
            with receive, send:
                async for _ in receive:
                    if self.chance.random() < 0.1:
                        break
        if failure:
            raise failure[0]

    async def fan_out(self) -> None:
        async with fan_out(self.client, ["hello"] * 12, max_at_once=5) as events:
            async for _ in events:
                if self.chance.random() < 0.01:
                    break

    async def race(self) -> None:
        async with race(self.client, "hello", hedge_after=0.01) as chunks:
            await chunks.read()

    async def gather(self) -> None:
        outcomes = await gather(self.client, ["hello"] * 8, max_at_once=4)
        assert [outcome.index for outcome in outcomes] == list(range(8))


def resident() -> int:
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def soak(url: str, seconds: float, seed: int, loop: str) -> dict[str, Any]:
    def held() -> tuple[int, int]:
        return sum(1 for _ in Path("/proc/self/fd").iterdir()), len(anyio.get_running_tasks())

    chance = random.Random(seed)
    counts: Counter[str] = Counter()
    memory: list[int] = []
    before: tuple[int, int] | None = None
    for part in (seconds / 3, seconds * 2 / 3):
        run = Soak(url, chance, anyio.current_time() + part, native=loop != "trio")
        await run.run()
        pool = opener_of(run.client).pool
        assert pool is not None
        available, _, waiting = pool.statistics()
        assert (available, waiting) == (CONNECTIONS, 0), (available, waiting)
        await run.client.aclose()
        for _ in range(2):  # on Trio the reactor's task ends one turn after its last connection
            await checkpoint()
        counts += run.counts
        held_now = held()
        before = before or held_now  # includes the loop's own descriptors, which are open by now
        assert held_now == before, f"descriptors and tasks: {before} before, {held_now} after"
        del run
        gc.collect()
        memory.append(resident())
    assert memory[1] - memory[0] < GROWTH, f"memory grew: {memory}"
    return {"loop": loop, "seed": seed, "held": before, "memory": memory, "counts": counts}


def run_one(loop: str, seconds: float, seed: int) -> None:
    site = [sys.executable, str(Path(__file__).with_name("faulty_site.py")), str(seed)]
    with subprocess.Popen(site, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            assert process.stdout is not None
            url = f"http://127.0.0.1:{int(process.stdout.readline())}"
            options = {"use_uvloop": True} if loop == "uvloop" else {}
            told = anyio.run(
                soak,
                *(url, seconds, seed, loop),
                backend="trio" if loop == "trio" else "asyncio",
                backend_options=options,
            )
            faults = httpx.post(f"{url}/faults", content=b"").json()
        finally:
            process.kill()
    first, last = (number / 2**20 for number in told["memory"])
    sys.stdout.write(
        f"{loop}, seed {seed}: descriptors and tasks {told['held']} at the end as after a third, "
        f"memory {first:.1f} MiB, then {last:.1f} MiB\n  the site: {faults}\n"
        f"  the client: {dict(sorted(told['counts'].items()))}\n"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0, help="on each event loop")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**31)
    parser.add_argument("--loop", choices=["asyncio", "uvloop", "trio"])
    given = parser.parse_args()
    if given.loop:
        run_one(given.loop, given.seconds, given.seed)
    else:
        for name in ("asyncio", "uvloop", "trio"):
            again = [sys.executable, __file__, "--loop", name, "--seed", str(given.seed)]
            subprocess.run([*again, "--seconds", str(given.seconds)], check=True)  # noqa: S603
