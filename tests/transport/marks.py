"""Marks of the transport's tests: with and without TLS, and in virtual time."""

from __future__ import annotations

import pytest
from support.loops import VIRTUAL_LOOPS

TLS = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
VIRTUAL = pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)
