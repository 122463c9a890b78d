"""The HTTP library: httpx or, where that is not installed, its continuation httpx2.

The only module that imports it. Objects of both are taken wherever an application passes them.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx
else:
    try:
        import httpx
    except ImportError:
        import httpx2 as httpx

__all__ = ["httpx", "library_of"]


def library_of(thing: object) -> ModuleType:
    """httpx or httpx2, whichever the class of this object comes from."""
    for base in type(thing).__mro__:
        if base.__module__.partition(".")[0] in ("httpx", "httpx2"):
            return importlib.import_module(base.__module__.partition(".")[0])
    return httpx
