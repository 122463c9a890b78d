"""Fixtures for the tests of commands: none of the user's files, and short waits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.raw_site import environment
from support.terminal import (
    chat,  # noqa: F401 - a fixture
)


@pytest.fixture(autouse=True)
def _no_user_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the user's configuration and data."""
    monkeypatch.setenv("GPROCHAT_CONFIG", os.devnull)
    monkeypatch.setenv("GPROCHAT_DATA", str(tmp_path / "data"))
    for name in ("GPROCHAT_URL", "GPROCHAT_SECRET_KEY", "GPROCHAT_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _short_waits(short_backoff: None) -> None:
    """Retry without long waits."""


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables that affect a command."""
    for name in set(os.environ) - environment().keys():
        monkeypatch.delenv(name)
