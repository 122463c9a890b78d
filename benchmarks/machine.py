"""The machine of a run: its cores, limits and versions."""

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
    """Return the server's core and the client's, which are the same if there is only one."""
    ours = sorted(os.sched_getaffinity(0))
    return ours[0], ours[-1]


def pin(core: int) -> None:
    """Pin this process and its children to one core, and raise its limit of open files."""
    os.sched_setaffinity(0, {core})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def most_open_files() -> int:
    """Return the maximum number of open files and sockets of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft


def resident_bytes() -> int:
    """Return the resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE


def load() -> float:
    """Return the load average of the last minute."""
    return os.getloadavg()[0]


def facts() -> dict[str, Any]:
    """Return facts that a reader needs to compare numbers with those of another run."""
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
