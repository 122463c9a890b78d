"""A small Ray cluster on this machine, for all tests of this folder."""

# pyright: reportMissingImports=false

from __future__ import annotations

import gc
import os
import secrets
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: nox -s on_ray")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a cluster with two workers. Its processes end with the fixture."""
    before = os.environ.copy()
    paths = (str(ROOT), str(ROOT / "tests"), before.get("PYTHONPATH", ""))
    os.environ |= {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "RAY_AUTH_TOKEN": secrets.token_hex(32),  # otherwise Ray writes one into the home folder
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    try:
        context = started()
        try:
            yield context.address_info["address"]
        finally:
            ray.shutdown()
            assert not children_of_ray(), "Ray has left processes behind"
    finally:
        os.environ.clear()
        os.environ.update(before)


def started() -> Any:
    """Start the cluster. Retry twice: on a busy machine, Ray's start may time out."""
    for is_last in (False, False, True):
        try:
            return ray.init(
                address="local",
                num_cpus=2,
                object_store_memory=80 * 2**20,
                include_dashboard=False,
                log_to_driver=False,
                _node_ip_address="127.0.0.1",
            )
        except Exception:
            if is_last:
                raise
        for child in psutil.Process().children(recursive=True):  # Ray leaves them running
            child.kill()
        with warnings.catch_warnings(action="ignore"):
            gc.collect()
    return None


def children_of_ray() -> list[str]:
    """Return the command lines of this process's children that belong to Ray."""
    children = psutil.Process().children(recursive=True)
    _, alive = psutil.wait_procs(children, timeout=20)
    commands = [" ".join(child.cmdline()) for child in alive]
    return [command for command in commands if "ray" in command]
