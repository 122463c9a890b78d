"""The embedded site in a thread, and scripts run as users would run them, against it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from anyio.from_thread import start_blocking_portal

import gprochat_anyio
from gprochat_anyio.site import offline_model, serve

ROOT = Path(__file__).resolve().parent.parent
PACKAGE_PATH = str(Path(gprochat_anyio.__file__).parent.parent)
"""Where scripts import the package from: the one under test, installed or not."""

BOUND = 60
"""Seconds that a script may take; it takes about one."""


@contextmanager
def embedded_site() -> Iterator[dict[str, str]]:
    """The environment that makes the embedded site the one to ask, for the time of the block."""
    model = partial(offline_model, delay=0)
    protected = partial(serve, model, secret_key="a made-up key", passwords=["a-made-up-password"])
    with start_blocking_portal("trio") as portal:
        serving, url = portal.start_task(protected)
        unwanted = ("GPROCHAT_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "COVERAGE_")
        try:
            yield {k: v for k, v in os.environ.items() if not k.upper().startswith(unwanted)} | {
                "GPROCHAT_URL": url,
                "GPROCHAT_SECRET_KEY": "a made-up key",
                "GPROCHAT_PASSWORD": "a-made-up-password",
            }
        finally:
            serving.cancel()


def output_of(script: Path, environment: dict[str, str]) -> str:
    """What a script prints; it must succeed, with nothing on stderr and no warning."""
    ran = subprocess.run(  # noqa: S603 - our own scripts
        [sys.executable, "-W", "error", str(script)],
        check=False,
        capture_output=True,
        env=environment | {"PYTHONIOENCODING": "utf-8", "PYTHONPATH": PACKAGE_PATH},
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        timeout=BOUND,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout
