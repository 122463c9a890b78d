"""Sync clients in tests: their event loops and threads, and programs that use them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .raw_site import INTERRUPTIBLE, environment, process_of

BACKENDS = ["asyncio", "trio"]
POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="requires POSIX signals and forks")


def loop_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("gprochat_anyio")]


@contextmanager
def script(
    code: str, url: str, *, flags: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in its own process, which is killed at the end of the block or after
    `BOUND`."""
    setup = f"{INTERRUPTIBLE}\nimport os, sys, threading\nfrom gprochat_anyio import SyncClient\n"
    with process_of(
        [sys.executable, "-W", "error", *flags, "-c", f"{setup}url = {url!r}\n{code}"],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        yield process
