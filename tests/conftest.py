"""Every async test runs on asyncio, on asyncio with uvloop, and on Trio."""

from __future__ import annotations

import os
from typing import Any

import pytest
from loops import LOOPS, virtual_backend
from reactors import (
    force_reader_tasks,
    reader_tasks,  # noqa: F401 - a fixture
)

if os.environ.get("GPROCHAT_READER_TASKS"):  # `nox -s reader_tasks`
    force_reader_tasks(pytest.MonkeyPatch())


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The event loop; `@pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)`
    asks for loops in virtual time instead."""
    return virtual_backend(request.param)


@pytest.fixture(autouse=True)
def _no_files_of_the_person(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No test of the commands sees what the person who runs it has configured, or keeps."""
    if request.path.parent.name == "cli":
        data = request.getfixturevalue("tmp_path") / "data"
        monkeypatch.setenv("GPROCHAT_CONFIG", os.devnull)
        monkeypatch.setenv("GPROCHAT_DATA", str(data))
        for name in ("GPROCHAT_URL", "GPROCHAT_SECRET_KEY", "GPROCHAT_PASSWORD"):
            monkeypatch.delenv(name, raising=False)
