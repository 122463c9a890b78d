"""The library's public names, by the package that exports them."""

from __future__ import annotations

import ast
from importlib import import_module
from importlib.util import find_spec
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
ON_RAY = "gprochat_anyio.batch.on_ray"
"""A module that is read and not imported, because importing it requires Ray."""


def public_names() -> dict[str, list[str]]:
    """Return the names in each package's `__all__`, or else those imported `as` themselves."""
    found = {}
    for package in PACKAGES:
        module = import_module(package)
        assert module.__file__ is not None
        names = getattr(module, "__all__", None) or _reexported(Path(module.__file__))
        found[package] = sorted(set(names) - {"__version__"})
    found[ON_RAY] = sorted(_listed(ON_RAY))
    return found


def _listed(module: str) -> list[str]:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return [
        name
        for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        for name in ast.literal_eval(node.value)
    ]


def _reexported(path: Path) -> list[str]:
    return [
        name.asname
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level
        for name in node.names
        if name.asname == name.name
    ]
