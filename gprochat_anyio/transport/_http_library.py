"""The HTTP library: httpx or, if that is not installed, its successor httpx2.

Only this module imports it. Applications may pass objects of either library.
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
    """Return the library that defines an object's class: httpx or httpx2."""
    for base in type(thing).__mro__:
        if base.__module__.partition(".")[0] in ("httpx", "httpx2"):
            return importlib.import_module(base.__module__.partition(".")[0])
    return httpx
