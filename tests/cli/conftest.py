"""No test of the commands sees what the person who runs it has configured, or keeps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _no_files_of_the_person(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GPROCHAT_CONFIG", os.devnull)
    monkeypatch.setenv("GPROCHAT_DATA", str(tmp_path / "data"))
    for name in ("GPROCHAT_URL", "GPROCHAT_SECRET_KEY", "GPROCHAT_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
