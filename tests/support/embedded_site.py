"""The embedded site in a thread, and scripts that run against it as users would run them."""

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

ROOT = Path(__file__).resolve().parents[2]
PACKAGE_PATH = str(Path(gprochat_anyio.__file__).parent.parent)
"""Directory from which scripts import the package under test, installed or not."""

BOUND = 60
"""Timeout of a script, in seconds. Scripts take about one."""


@contextmanager
def embedded_site() -> Iterator[dict[str, str]]:
    """Serve the embedded site. Yield an environment whose default site it is."""
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
    """Return a script's output. It must succeed, without a warning or output on stderr."""
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
