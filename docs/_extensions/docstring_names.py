"""Names in single backticks in docstrings: public names become links, others code."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from typing import Any

import public_names
from sphinx.application import Sphinx

_SINGLE = re.compile(r"(?<![`:\w])`([^`]+)`(?![`_\w])", re.ASCII)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the handler."""
    app.connect("autodoc-process-docstring", _link)
    return {"parallel_read_safe": True}


def _targets() -> dict[str, str]:
    """Return the full names of public names, such as `Client` and `Client.stream`."""
    found: dict[str, str] = {}
    for module, names in public_names.public_names().items():
        for name in names:
            value = _value(module, name)
            found.setdefault(name, f"{module}.{name}")
            if inspect.isclass(value) and value.__module__.startswith("gprochat_anyio"):
                for member in dir(value):
                    if not member.startswith("_"):
                        found.setdefault(f"{name}.{member}", f"{module}.{name}.{member}")
    del found["Turn"], found["Request"], found["Reply"]  # ambiguous
    return found


def _value(module: str, name: str) -> object:
    """Return a public object. None if its module requires a package that is not installed."""
    try:
        return getattr(import_module(module), name)
    except ImportError:
        return None


_TARGETS = _targets()


def _link(*arguments: Any) -> None:
    lines: list[str] = arguments[-1]
    if arguments[1] == "data":
        lines.clear()  # it is that of the constant's class

    def linked(found: re.Match[str]) -> str:
        text = found[1]
        target = _TARGETS.get(text.removesuffix("()"))
        return f"``{text}``" if target is None else f":py:obj:`{text} <{target}>`"

    lines[:] = _SINGLE.sub(linked, "\n".join(lines)).split("\n")
