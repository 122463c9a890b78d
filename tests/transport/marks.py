"""Marks of the transport's tests."""

from __future__ import annotations

import pytest

TLS = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
