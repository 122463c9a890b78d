"""The library's imports go one way, and only where this picture has an arrow."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import gprochat_anyio

# Each module or package, and what of the library it may import. A line only names lines above
# it. Within a package the modules are free, as long as they import in no circle.
ARROWS = {
    # the package itself imports each public name when it is first used
    "_version": "",
    "gprochat_anyio": "_version",
    # what everything may use, and what knows nothing of requests
    "_errors": "",
    "_redaction": "",
    "_settings": "_errors",
    # what bytes mean, without I/O; and how they get there and back, for whatever they mean
    "_wire": "_errors _redaction",
    "transport": "_redaction",
    # one request to one site, then one site, then many requests
    "_request": "_errors _redaction _settings _version _wire transport",
    "_client": "_redaction _request _settings _wire",
    "_fanout": "_errors _redaction _request _settings _wire",
    "_fleet": "_client _errors _fanout _redaction _request _settings _wire",
    "_conversation": "_errors _request _settings _wire",
    # other ways to the same
    "_sync": "_client _conversation _errors _fanout _redaction _request _settings _wire",
    "_g4f_provider": "_client _errors _redaction _request _settings _wire",
    "otel": "_client _fleet _request _version",
    # built on the public names; `PRIVATE` has the exceptions
    "batch": "_fanout _wire gprochat_anyio",
    "site": "_request _wire gprochat_anyio",
    "testing": "_request _wire gprochat_anyio transport",
    "cli": "_request batch gprochat_anyio site transport",
}

# What packages that are built on the public names import besides, and why no public name serves.
PRIVATE = {
    "batch": {
        "_fanout.results.Results": "the type of what `as_completed` returns",
        "_fanout.prompts": "an iterable of either kind, pulled as a fan-out pulls it",
        "_wire.messages.Prompt": "a type",
        "_wire.messages.checked": "an invalid prompt, before it is sent",
        "_wire.messages.folded": "a key does not depend on where the system text is",
        "_wire.messages.history": "a prompt as messages",
    },
    "site": {
        "_wire.admission.Gate": "the wire's other end",
        "_wire.admission.Refusal": "the wire's other end",
        "_wire.admission.WireResponse": "the wire's other end",
        "_wire.admission.error_response": "the wire's other end",
        "_wire.admission.model_failure": "the wire's other end",
        "_wire.gprochat.AUTH_PATH": "the wire's other end",
        "_wire.gprochat.FAILURE_MARKER": "the wire's other end",
        "_wire.gprochat.GENERATE_PATH": "the wire's other end",
        "_wire.gprochat.REPLY_CONTENT_TYPE": "the wire's other end",
        "_wire.json_body.decode_json": "one way to decode JSON",
        "_wire.json_body.encode_json": "one way to encode JSON",
        "_request.model_texts.Texts": "a model is iterated over in one way",
        "_wire.model_api.Finish": "public as `site.Finish`",
        "_wire.model_api.Model": "public as `site.Model`",
        "_wire.model_api.ModelError": "public as `site.ModelError`",
        "_wire.model_api.Turn": "public as `site.Turn`",
        "_wire.model_api.spoken": "a history as models want it, for each API",
        "_wire.messages.folded": "a model's turns have no system text",
        "_wire.messages.history": "OpenAI's messages are checked as prompts are",
        "_wire.openai_server.DONE": "the wire's other end",
        "_wire.openai_server.completion_object": "the wire's other end",
        "_wire.openai_server.error_object": "the wire's other end",
        "_wire.openai_server.usage_object": "the wire's other end",
        "_wire.server_sent_events.encode_event": "the wire's other end",
    },
    "testing": {
        "_request.chat_client.opener_of": "the connections of a client, to count and to record",
        "_request.address.SiteAddress": "a URL as a client takes it",
        "_wire.admission.Gate": "a scripted site admits what a site admits",
        "_wire.admission.Refusal": "a scripted site admits what a site admits",
        "_wire.admission.WireResponse": "a scripted site responds as a site does",
        "_wire.admission.error_response": "a scripted site responds as a site does",
        "_wire.admission.read_parts": "a scripted site admits what a site admits",
        "_wire.gprochat.AUTH_PATH": "the wire's other end",
        "_wire.gprochat.FAILURE_MARKER": "the wire's other end",
        "_wire.gprochat.MODEL_FAILURE_CODE": "the wire's other end",
        "_wire.gprochat.REPLY_CONTENT_TYPE": "the wire's other end",
        "_wire.gprochat.sign": "a recording is signed anew",
        "_wire.json_body.decode_json_object": "one way to decode JSON",
        "_wire.json_body.encode_json": "one way to encode JSON",
        "_wire.openai.text_in": "one way to read a content of OpenAI's",
        "_wire.openai_server.DONE": "the wire's other end",
        "_wire.openai_server.completion_object": "the wire's other end",
        "_wire.openai_server.error_object": "the wire's other end",
        "_wire.openai_server.usage_object": "the wire's other end",
        "_wire.server_sent_events.encode_event": "the wire's other end",
        "transport._connection.Connection": "what is recorded goes over it",
        "transport._connection.Receiver": "what is recorded goes over it",
        "transport._failures.ProtocolViolation": "what is recorded ends where a response does",
        "transport._response_parser.ResponseParser": "what is recorded ends where a response does",
        "transport._wiring.NetworkForbiddenError": "the switch is the transport's",
        "transport._wiring.in_memory": "the place of sites in memory",
        "transport._wiring.switches": "the switch is the transport's",
    },
    "cli": {
        "_request.address.SiteAddress": "`check` connects step by step, to tell which one fails",
        "transport._connecting.Opened": "`check` connects step by step",
        "transport._connecting.connect": "`check` connects step by step",
        "transport._failures.ConnectFailure": "`check` connects step by step",
        "transport._failures.reason_of": "`check` connects step by step",
        "transport._target.Target": "`check` connects step by step",
    },
}

HTTP_LIBRARIES = {"httpcore", "httpcore2", "httpx", "httpx2"}
HTTP_MODULES = {
    "transport._http_library": "httpx or httpx2, whichever there is",
    "transport.httpx2": "a class of httpx2's, for whoever has it",
}

EVENT_LOOPS = {"asyncio", "trio", "uvloop"}
BOUND_TO_LOOPS = {
    "cli._answering": "a chat runs on asyncio, as prompt_toolkit has it",
    "site._hypercorn_connection": "Hypercorn has one connection for asyncio and another for Trio",
    "testing._injection": "native cancellation is asyncio's own",
    "site._hypercorn": "Hypercorn has one server for asyncio and another for Trio",
    "transport._asyncio_loop": "imported where asyncio runs",
    "transport._trio_loop": "imported where Trio runs",
}

TWICE = {
    "AnyIOTransport": "the transport of httpx, and that of httpx2",
    "Turn": "a turn as a model gets it, and as a test sees it",
}
"""Names of public classes that are two."""

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
    assert {m for m in MODULES if outside(m) & HTTP_LIBRARIES} == HTTP_MODULES.keys()


def test_no_module_is_bound_to_an_event_loop() -> None:
    bound = {m for m in MODULES if outside(m, top_level=True) & EVENT_LOOPS}
    assert bound == BOUND_TO_LOOPS.keys()
    for module in MODULES:  # none is imported for the sake of the other
        loops = {f"gprochat_anyio.transport._{loop}_loop" for loop in EVENT_LOOPS}
        assert not [n for n in imports(module, top_level=True) if n.rpartition(".")[0] in loops]


@pytest.mark.parametrize("package", PRIVATE)
def test_private_names_are_used_only_where_no_public_one_serves(package: str) -> None:
    used = set()
    for module in MODULES:
        if unit(module) == package:
            for name in imports(module):
                place, _, rest = name.removeprefix("gprochat_anyio.").partition(".")
                if place == package or not name.startswith("gprochat_anyio."):
                    continue
                if rest and any(part.startswith("_") for part in (place, *rest.split("."))):
                    used.add(f"{place}.{rest}")
    assert used == PRIVATE[package].keys()
    assert not {name.rpartition(".")[2] for name in used} & {*gprochat_anyio.__all__}


def test_every_module_has_a_name_of_its_own() -> None:
    names = [path.stem.lstrip("_") for path in MODULES.values() if path.stem != "__init__"]
    assert duplicates(names) == set()


def test_every_class_has_a_name_of_its_own() -> None:
    names = [
        node.name.lstrip("_")
        for path in MODULES.values()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    assert duplicates(names) == TWICE.keys()


def duplicates(names: list[str]) -> set[str]:
    return {name for name, count in Counter(names).items() if count > 1}
