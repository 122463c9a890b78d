"""The library's imports go one way, and only where this picture has an arrow."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import gprochat_anyio

# Each module or package, and what of the library it may import. A line only names lines above
# it. Within a package the modules are free, as long as they import in no circle.
ARROWS = {
    "_version": "",
    "_errors": "",
    "gprochat_anyio": "_version",
    "_redaction": "",
    "transport": "_redaction",
    "_wire": "_errors _redaction",
    "_settings": "_errors",
    "_request": "_errors _redaction _settings _version _wire transport",
    "_client": "_errors _redaction _request _settings _wire",
    "otel": "_client _request _version",
    "_fanout": "_client _errors _redaction _request _settings _wire",
    "_conversation": "_client _errors _request _settings _wire",
    "_sync": "_client _conversation _errors _fanout _redaction _request _settings _wire",
    "site": "_request _wire gprochat_anyio transport",
    "batch": "_fanout _wire gprochat_anyio",
    "testing": "_request _wire gprochat_anyio transport",
    "cli": "_request batch gprochat_anyio site transport",
    "_g4f_provider": "_client _errors _redaction _settings _wire",
}

HTTP_LIBRARIES = {"httpcore", "httpcore2", "httpx", "httpx2"}
HTTP_MODULE = "transport._http_library"

EVENT_LOOPS = {"asyncio", "trio", "uvloop"}
BOUND_TO_LOOPS = {
    "cli._answering": "a chat runs on asyncio, as prompt_toolkit has it",
    "site._hypercorn_connection": "Hypercorn has one connection for asyncio and another for Trio",
    "testing._injection": "native cancellation is asyncio's own",
    "site._hypercorn": "Hypercorn has one server for asyncio and another for Trio",
}

ROOT = Path(gprochat_anyio.__file__).parent


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "gprochat_anyio"


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(module: str, *, top_level: bool = False) -> Iterator[str]:
    """What a module imports, as dotted names: absolute ones, or below `gprochat_anyio.`.

    :param top_level: only what runs when the module is imported
    """
    path = MODULES[module]
    package = ["gprochat_anyio", *path.relative_to(ROOT).parent.parts]
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), top_level=top_level):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def statements(node: ast.AST, *, top_level: bool) -> Iterator[ast.AST]:
    """All that runs, so nothing under `if TYPE_CHECKING`."""
    children: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        children = node.orelse
    for child in children:
        if top_level and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield child
        yield from statements(child, top_level=top_level)


def inside(module: str) -> set[str]:
    """The library's modules that a module imports."""
    found = set()
    for name in imports(module):
        if name.partition(".")[0] == "gprochat_anyio":
            target = name.removeprefix("gprochat_anyio.")
            while target and target not in MODULES:
                target = target.rpartition(".")[0]
            found.add(target or "gprochat_anyio")
    return found - {module}


def outside(module: str, *, top_level: bool = False) -> set[str]:
    return {name.partition(".")[0] for name in imports(module, top_level=top_level)}


def unit(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_only_arrows_of_the_picture(module: str) -> None:
    assert unit(module) in ARROWS, "a new module: draw its arrows"
    allowed = {unit(module), *ARROWS[unit(module)].split()}
    assert {unit(target) for target in inside(module)} <= allowed


def test_the_picture_has_no_circle_and_nothing_made_up() -> None:
    above: set[str] = set()
    for name, arrows in ARROWS.items():
        assert set(arrows.split()) <= above, name
        above.add(name)
    assert above == {unit(module) for module in MODULES}
    used = {unit(m): set[str]() for m in MODULES}
    for module in MODULES:
        used[unit(module)] |= {unit(target) for target in inside(module)} - {unit(module)}
    assert used == {name: set(arrows.split()) for name, arrows in ARROWS.items()}


def test_every_public_name_is_typed_and_found() -> None:
    (block,) = (
        node.body
        for node in ast.parse(MODULES["gprochat_anyio"].read_text(encoding="utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    typed = {
        alias.name: node.module
        for node in block
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert len(typed) == len(block)
    assert typed == gprochat_anyio._MODULES
    for name in gprochat_anyio.__all__:
        assert getattr(gprochat_anyio, name) is not None
        assert name in dir(gprochat_anyio)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = gprochat_anyio.Nothing  # type: ignore[attr-defined]


def test_the_import_alone_loads_nothing() -> None:
    code = "import sys, gprochat_anyio; print(*sys.modules)"
    loaded = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    assert not {"anyio", "httpx", "httptools", "trio", "ssl"} & set(loaded.stdout.split())


def test_no_module_imports_in_a_circle() -> None:
    list(graphlib.TopologicalSorter({m: inside(m) for m in MODULES}).static_order())


def test_one_module_imports_the_http_library() -> None:
    assert {m for m in MODULES if outside(m) & HTTP_LIBRARIES} == {HTTP_MODULE}


def test_no_module_is_bound_to_an_event_loop() -> None:
    bound = {m for m in MODULES if outside(m, top_level=True) & EVENT_LOOPS}
    assert bound == BOUND_TO_LOOPS.keys()
