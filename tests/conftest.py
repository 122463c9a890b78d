"""Fixtures for all tests. Every async test runs on asyncio, on asyncio with uvloop, and on Trio."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.backoff import (
    short_backoff,  # noqa: F401 - a fixture
)
from support.garbage import (
    _frozen,  # noqa: F401 - a fixture
    no_garbage_collector,  # noqa: F401 - a fixture
)
from support.loops import LOOPS, virtual_backend
from support.reactors import (
    force_reader_tasks,
    reader_tasks,  # noqa: F401 - a fixture
)
from support.tiers import add_options, load_profile, select

if os.environ.get("GPROCHAT_READER_TASKS"):  # `nox -s reader_tasks`
    force_reader_tasks(pytest.MonkeyPatch())


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    load_profile(str(config.getoption("tier")))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    select(config, items)


def pytest_collection_finish() -> None:
    """Exclude the collected tests from garbage collections, which would take longer than most tests
    that request one."""
    gc.collect()
    gc.freeze()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Start one process more than there are CPUs, because a third of the time passes in waits.

    Run single files in one process: starting workers would take longer than the tests.
    """
    named = [Path(arg.partition("::")[0]) for arg in config.args]
    if all(path.suffix == ".py" for path in named):
        return 0
    available = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return (available or 1) + 1


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """True with `--full`."""
    return bool(pytestconfig.getoption("tier") == "full")


@pytest.fixture(scope="session")
def many(full: bool) -> int:
    """Number of concurrent requests in tests whose result must not depend on it."""
    return 2000 if full else 400


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The event loop. For virtual time, use `support.loops.virtual`."""
    return virtual_backend(request.param)


@pytest.fixture(scope="session", autouse=True)
def _data_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the chat log of commands, also in child processes, out of the user's own data
    directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPROCHAT_DATA", str(tmp_path_factory.mktemp("data")))
        yield
