"""Fixtures for the tests of batches: an output, and a journal that writes often."""

from __future__ import annotations

from pathlib import Path

import pytest

from gprochat_anyio.batch import _journal as journal_module


@pytest.fixture
def quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "TICK", 0.001)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "replies.jsonl"
