"""The library's public names, by the package that they are imported from."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

PACKAGES = (
    "gprochat_anyio",
    "gprochat_anyio.batch",
    "gprochat_anyio.otel",
    "gprochat_anyio.site",
    "gprochat_anyio.testing",
    "gprochat_anyio.transport",
    "gprochat_anyio.transport.httpx2",
)


def public_names() -> dict[str, list[str]]:
    """`__all__`, or what a package imports `as` its own name."""
    found = {}
    for package in PACKAGES:
        module = import_module(package)
        assert module.__file__ is not None
        names = getattr(module, "__all__", None) or _reexported(Path(module.__file__))
        found[package] = sorted(set(names) - {"__version__"})
    return found


def _reexported(path: Path) -> list[str]:
    return [
        name.asname
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level
        for name in node.names
        if name.asname == name.name
    ]
