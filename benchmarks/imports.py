"""Workload F: the cost of an import in a fresh interpreter."""

from __future__ import annotations

import os
import sys
import tempfile
from importlib.util import find_spec

import machine

_PROGRAMS = {
    "interpreter": "pass",
    "gprochat_anyio": "import gprochat_anyio",
    "its Client": "from gprochat_anyio import Client",
    "its Client, made": "from gprochat_anyio import Client; Client('http://127.0.0.1:9')",
    "anyio": "import anyio",
    "httpx": "import httpx",
    "trio": "import trio",
    "aiohttp": "import aiohttp",
    "openai": "import openai",
}


def measure(times: int) -> dict[str, list[float]]:
    """Return the CPU times of interpreters that only import, in seconds, by what they import.

    Rounds are interleaved. The first one compiles, into a temporary folder, and fills the caches;
    it does not count.
    """
    spent: dict[str, list[float]] = {
        name: [] for name, program in _PROGRAMS.items() if _can_run(program)
    }
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {machine.cores()[1]})  # child processes inherit it
    try:
        with tempfile.TemporaryDirectory(prefix="gprochat-bench-") as compiled:
            environment = os.environ | {"PYTHONPYCACHEPREFIX": compiled}
            environment.pop("PYTHONDONTWRITEBYTECODE", None)
            for _ in range(times + 1):
                for name, seconds in spent.items():
                    seconds.append(_cpu_of(_PROGRAMS[name], environment))
    finally:
        os.sched_setaffinity(0, before)
    return {name: seconds[1:] for name, seconds in spent.items()}


def _can_run(program: str) -> bool:
    words = program.split()
    return words[0] == "pass" or find_spec(words[1].rstrip(";")) is not None


def _cpu_of(program: str, environment: dict[str, str]) -> float:
    command = [sys.executable, "-c", program]
    process = os.posix_spawn(command[0], command, environment)
    _, status, used = os.wait4(process, 0)
    if status:
        raise RuntimeError(f"{program!r} failed in a fresh interpreter")
    return used.ru_utime + used.ru_stime
