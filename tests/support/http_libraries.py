"""httpx and its successor httpx2, as far as they are installed."""

from __future__ import annotations

import importlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

__all__ = ["EACH_LIBRARY", "LIBRARIES", "httpx"]

LIBRARIES: list[Any] = []
for _name in ("httpx", "httpx2"):
    with suppress(ImportError):
        LIBRARIES.append(importlib.import_module(_name))

if TYPE_CHECKING:
    import httpx
else:
    httpx = LIBRARIES[0]  # the one that the library prefers

EACH_LIBRARY = pytest.mark.parametrize("library", LIBRARIES, ids=lambda module: module.__name__)
