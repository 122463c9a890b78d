"""Measurement of one peer on one event loop in one workload."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable
from cProfile import Profile
from resource import RUSAGE_SELF, getrusage
from statistics import median
from typing import Any

import loops
import machine
import peers
from peers._peer import Peer
from server import Control
from takers import Counter, FirstText, Recorder, p99_lateness
from wire import Shape
from workloads import WORKLOADS, Job, Workload

_ENOUGH = 0.7
"""CPU time after which workload A ends, in seconds."""

_OTHER_FILES = 100
"""Number of files that a process opens besides the measured connections."""


class WrongTextError(Exception):
    """The peer did not receive the text that was sent, so its numbers are meaningless."""


class TooFewFilesError(Exception):
    """The limit of open files is too low for the workload's connections."""


class Meter:
    """Meter of the cost between `start` and `stop`, in this process and in the load server."""

    def __init__(self, control: Control, profile: Profile | None) -> None:
        self.control = control
        self.started_ns = 0
        self._profile = profile

    def start(self) -> None:
        gc.collect()
        self._server = self.control.stats()["cpu"]
        self._system = getrusage(RUSAGE_SELF).ru_stime
        self.started_ns = time.monotonic_ns()
        self._cpu = time.process_time()
        if self._profile is not None:
            self._profile.enable()

    def stop(self) -> dict[str, float]:
        if self._profile is not None:
            self._profile.disable()
        cpu = time.process_time() - self._cpu
        wall = (time.monotonic_ns() - self.started_ns) / 1e9
        system = getrusage(RUSAGE_SELF).ru_stime - self._system
        server = self.control.stats()["cpu"] - self._server
        return {"cpu": cpu, "system": system, "wall": wall, "server_cpu": server}

    def spent(self) -> float:
        """Return the CPU time since the start, in seconds."""
        return time.process_time() - self._cpu


def run(job: Job, port: int, *, quick: bool, profile: Profile | None = None) -> dict[str, Any]:
    """Return the cost of a job: `cpu`, `system`, `wall` and `server_cpu` in seconds, and `units`.

    :param port: The load server's port.
    :param profile: A profiler, which is enabled while the meter runs.
    :raises TooFewFilesError: If the limit of open files is too low.
    :raises WrongTextError: If the peer did not receive the text that was sent.
    """
    workload = WORKLOADS[job.workload]
    peer = peers.load(job.peer, over_events=workload.over_events)()
    control = Control(port)
    count = min(workload.replies(quick=quick), peers.PEERS[job.peer].most_in(workload.kind))
    connections = count if workload.kind in "CME" else 10
    if connections + _OTHER_FILES > machine.most_open_files():
        raise TooFewFilesError(
            f"{job.workload} needs {connections + _OTHER_FILES:,} open files, and the limit is "
            f"{machine.most_open_files():,}; raise the hard limit (ulimit -Hn) to measure it"
        )

    async def main() -> dict[str, Any]:
        await peer.open(f"http://127.0.0.1:{port}", connections)
        try:
            await _warm_up(peer, workload)
            return await _MEASURES[workload.kind](peer, workload.shape, count, meter)
        finally:
            await peer.close()

    meter = Meter(control, profile)
    try:
        return loops.run(job.loop, main)
    finally:
        control.close()


async def _warm_up(peer: Peer, workload: Workload) -> None:
    """Ask 20 times, to load lazy imports. Leave no connection open in workloads that open many."""
    shape = Shape(10, close=workload.kind in "CME" or workload.shape.close)
    counter = Counter()
    for _ in range(20):
        await peer.reply(shape.prompt, counter.take)
    _check(counter.characters, shape, 20, workload.kind)


async def _one_long_reply(peer: Peer, shape: Shape, most: int, meter: Meter) -> dict[str, Any]:
    count, counter = 0, Counter()
    meter.start()
    while count < most and (not count or meter.spent() < _ENOUGH):
        await peer.reply(shape.prompt, counter.take)
        count += 1
    cost = meter.stop()
    _check(counter.characters, shape, count, "A")
    return cost | {"units": shape.chunks * count}


async def _in_turn(peer: Peer, shape: Shape, count: int, meter: Meter) -> dict[str, Any]:
    prompt, counter = shape.prompt, Counter()
    meter.start()
    for _ in range(count):
        await peer.reply(prompt, counter.take)
    cost = meter.stop()
    _check(counter.characters, shape, count, "B")
    return cost | {"units": count}


async def _at_once(peer: Peer, shape: Shape, count: int, meter: Meter) -> dict[str, Any]:
    recorders = [Recorder() for _ in range(count)]
    takes = [recorder.take for recorder in recorders]
    meter.start()
    await peer.replies(shape.prompt, takes)
    cost = meter.stop()
    for recorder in recorders:
        _check(recorder.characters, shape, 1, "C")
    if peer.streams:
        cost["late"] = p99_lateness(recorders)
    return cost | {"units": count, "most_open": meter.control.stats()["most_answering"]}


async def _memory(peer: Peer, shape: Shape, count: int, meter: Meter) -> dict[str, Any]:
    counter, used = Counter(), 0
    takes = [counter.take] * count

    async def watch() -> None:
        nonlocal used
        await _held(meter.control, count)
        used = machine.resident_bytes() - before
        meter.control.release()

    async def replies() -> None:
        await peer.replies(shape.prompt, takes)

    meter.start()
    before = machine.resident_bytes()
    await loops.together(lambda call: call(), [replies, watch])
    cost = meter.stop()
    _check(counter.characters, shape, count, "M")
    return cost | {"units": count, "bytes": used / count}


async def _first_text(peer: Peer, shape: Shape, count: int, meter: Meter) -> dict[str, Any]:
    prompt, firsts = shape.prompt, list[FirstText]()
    meter.start()
    for _ in range(count):
        firsts.append(first := FirstText())
        await peer.reply(prompt, first.take)
    cost = meter.stop()
    _check(sum(first.characters for first in firsts), shape, count, "D")
    return cost | {"units": count, "first_text": median(first.seconds for first in firsts)}


async def _cancel(peer: Peer, shape: Shape, count: int, meter: Meter) -> dict[str, Any]:
    takes = [Counter().take] * count
    cancelled = loops.cancelled_by_anyio if peer.anyio_scope else loops.cancelled

    async def work() -> None:
        await peer.replies(shape.prompt, takes)

    async def all_open() -> None:
        await _held(meter.control, count)

    await cancelled(work, all_open, meter.start)
    await loops.sleep(0.05)  # callbacks that the cancellation has scheduled count as well
    cost = meter.stop()
    while (seen := meter.control.stats())["open"]:
        await loops.sleep(0.01)
    until_last_close = (seen["last_close_ns"] - meter.started_ns) / 1e9
    return cost | {"units": count, "wall": until_last_close}


async def _held(control: Control, count: int) -> None:
    """Wait until the server holds `count` replies, and the client has taken their first text."""
    while control.stats()["held"] < count:
        await loops.sleep(0.02)
    await loops.sleep(0.3)


def _check(characters: int, shape: Shape, count: int, kind: str) -> None:
    if characters != shape.characters * count:
        raise WrongTextError(
            f"workload {kind}: received {characters} characters, not {shape.characters * count}"
        )


_MEASURES: dict[str, Callable[[Peer, Shape, int, Meter], Awaitable[dict[str, Any]]]] = {
    "A": _one_long_reply,
    "B": _in_turn,
    "C": _at_once,
    "M": _memory,
    "D": _first_text,
    "E": _cancel,
}
