"""Retries without long waits, in real time."""

from __future__ import annotations

from typing import Any

import pytest

from gprochat_anyio import Retry


@pytest.fixture
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the wait before a retry, where the tested code leaves it at its default."""
    init: Any = Retry.__init__
    monkeypatch.setitem(init.__kwdefaults__, "backoff", 0.01)
