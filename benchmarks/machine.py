"""What the benchmarks run on: which core is whose, and the facts to keep beside the numbers."""

from __future__ import annotations

import os
import platform
import resource
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    *("gprochat-anyio", "anyio", "trio", "httptools", "msgspec", "uvloop", "aiohttp"),
    *("httpx", "httpcore", "httpx2", "httpcore2", "openai"),
)

_PAGE = os.sysconf("SC_PAGE_SIZE")


def cores() -> tuple[int, int]:
    """The server's core and the client's; the same one twice where there is only one."""
    ours = sorted(os.sched_getaffinity(0))
    return ours[0], ours[-1]


def pin(core: int) -> None:
    """Keep this process, and what it will start, on one core, and let it open many sockets."""
    os.sched_setaffinity(0, {core})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def most_open_files() -> int:
    """Return how many files and sockets this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft


def resident_bytes() -> int:
    """The memory of this process that is in use now."""
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE


def load() -> float:
    """How many processes want to run, on the average of the last minute."""
    return os.getloadavg()[0]


def facts() -> dict[str, Any]:
    """What a reader needs to know to compare numbers with those of another run."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "load_at_start": load(),
        "packages": {name: v for name in PACKAGES if (v := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
