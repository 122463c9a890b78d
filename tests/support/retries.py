"""Retry settings of clients in tests."""

from __future__ import annotations

from gprochat_anyio import Retry

ONCE = Retry(attempts=1)
