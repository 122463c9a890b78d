"""The library's imports go in one direction, and only along the arrows of this picture."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TypeGuard

import pytest

import gprochat_anyio

# Each module or package, and the parts of the library that it may import. A line refers only to
# lines above it. Within a package any import is allowed, except in a circle.
ARROWS = {
    # the package itself imports each public name on first use
    "_version": "",
    "gprochat_anyio": "_version",
    # for every module, and independent of requests
    "_accepting": "",
    "_errors": "",
    "_redaction": "",
    "_settings": "_errors",
    # the meaning of bytes, without I/O; and their transport, whatever they mean
    "_wire": "_errors _redaction",
    "transport": "_redaction",
    # one request to one site, then one site, then many requests
    "_request": "_errors _redaction _settings _version _wire transport",
    "_client": "_redaction _request _settings _wire",
    "_fanout": "_errors _redaction _request _settings _wire",
    "_fleet": "_client _errors _fanout _redaction _request _settings _wire",
    "_conversation": "_errors _request _settings _wire",
    # other interfaces to the same
    "_sync": "_client _conversation _errors _fanout _redaction _request _settings _wire",
    "_g4f_provider": "_client _errors _redaction _request _settings _wire",
    "otel": "_client _fleet _request _version",
    # built on the public names; `PRIVATE` has the exceptions
    "batch": "_fanout _fleet _request _wire gprochat_anyio transport",
    "site": "_accepting _request _wire gprochat_anyio transport",
    "testing": "_accepting _request _wire gprochat_anyio transport",
    "cli": "_request batch gprochat_anyio site transport",
    "__main__": "cli",
}

# Further imports of packages that are built on the public names, with reasons.
PRIVATE = {
    "batch": {
        "_fleet.faults.Fault": "a failure is the site's or the prompt's, as for a fleet",
        "_fleet.faults.fault_of": "a failure is the site's or the prompt's, as for a fleet",
        "_wire.json_body.encode_json": "one way to encode JSON",
        "_wire.messages.FieldedPrompt": "a prompt with the fields of its line",
        "_wire.openai_server.completion_object": "OpenAI's batch files hold its responses",
        "_wire.openai_server.error_object": "OpenAI's batch files hold its responses",
        "_wire.openai_server.usage_object": "OpenAI's batch files hold its responses",
        "_fanout.results.Results": "the type of what `as_completed` returns",
        "_fanout.prompts": "an iterable of either kind, pulled as a fan-out pulls it",
        "_request.leased_limiter.Demand": "a limiter whose limits another process decides",
        "_request.leased_limiter.LeasedLimiter": "a limiter whose limits another process decides",
        "_request.request_events.Observed": "an endpoint, for processes that share its pauses",
        "_wire.messages.Prompt": "a type",
        "_wire.messages.checked": "an invalid prompt, before it is sent",
        "_wire.messages.folded": "a key does not depend on where the system text is",
        "_wire.messages.history": "a prompt as messages",
        "transport._loops.EventLoop": "a call from a thread must not wait for an ended loop",
        "transport._loops.current_loop": "a call from a thread must not wait for an ended loop",
    },
    "site": {
        "_accepting.Address": "the kit's live site accepts connections as the site does",
        "_accepting.accept_connections": "the kit's live site accepts connections as the site does",
        "_accepting.listen": "the kit's live site accepts connections as the site does",
        "_accepting.url_of": "the kit's live site accepts connections as the site does",
        "_wire.admission.Gate": "the wire's other end",
        "_wire.admission.Refusal": "the wire's other end",
        "_wire.admission.WireResponse": "the wire's other end",
        "_wire.admission.error_response": "the wire's other end",
        "_wire.admission.is_same_secret": "secrets are compared in one place",
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
        "transport._loops.Signal": "the reactor pushes the server's connections, too",
        "transport._reactor.Deadline": "the reactor pushes the server's connections, too",
        "transport._reactor.Reactor": "the reactor pushes the server's connections, too",
        "transport._reactor.current_reactor": "the reactor pushes the server's connections, too",
        "transport._socket_connection.SocketConnection": "one way to read and write a socket",
        "transport._target.Target": "one way to read and write a socket",
        "transport._tls.TLSLayer": "one way to read and write a socket",
        "transport._wiring.is_loopback": "what loopback is",
    },
    "testing": {
        "_accepting.Address": "a live site accepts connections as the embedded site does",
        "_accepting.accept_connections": "a live site accepts connections as the embedded one does",
        "_accepting.listen": "a live site accepts connections as the embedded site does",
        "_accepting.url_of": "a live site accepts connections as the embedded site does",
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
        "_wire.gprochat.sign": "a recording gets a new signature",
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
        "batch._shards.Shard": "`--shard` runs in the command's own event loop, for Ctrl-C",
        "batch._shards.read_plan": "`batch --ray` goes on with the number of shards it began with",
        "_request.chat_client.opener_of": "`models` lists what a server offers; clients ask models",
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
    "testing._injection": "native cancellation is asyncio's own",
    "transport._asyncio_loop": "imported where asyncio runs",
    "transport._trio_loop": "imported where Trio runs",
}

TWICE = {
    "AnyIOTransport": "the transport of httpx, and that of httpx2",
    "Turn": "a turn as a model gets it, and as a test sees it",
}
"""Names that two public classes share."""

ROOT = Path(gprochat_anyio.__file__).parent


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "gprochat_anyio"


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def imports(module: str, *, top_level: bool = False) -> tuple[str, ...]:
    """Return a module's imports as dotted names: absolute, or below `gprochat_anyio.`.

    :param top_level: Only imports that run when the module is imported.
    """
    return tuple(_imports(module, top_level=top_level))


def _imports(module: str, *, top_level: bool) -> Iterator[str]:
    path = MODULES[module]
    package = ["gprochat_anyio", *path.relative_to(ROOT).parent.parts]
    for node in statements(tree_of(module), top_level=top_level):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def statements(node: ast.AST, *, top_level: bool) -> Iterator[ast.AST]:
    """Yield everything that runs, so nothing under `if TYPE_CHECKING`."""
    children: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if is_for_types(node):
        children = node.orelse
    for child in children:
        if top_level and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield child
        yield from statements(child, top_level=top_level)


def is_for_types(node: ast.AST) -> TypeGuard[ast.If]:
    """Return True for `if TYPE_CHECKING`."""
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def inside(module: str) -> set[str]:
    """Return the library's modules that a module imports."""
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
def test_only_imports_along_arrows(module: str) -> None:
    assert unit(module) in ARROWS, "a new module: add its arrows"
    allowed = {unit(module), *ARROWS[unit(module)].split()}
    assert {unit(target) for target in inside(module)} <= allowed


def test_the_picture_has_no_circle_and_no_unused_arrow() -> None:
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
    (block,) = (node.body for node in tree_of("gprochat_anyio").body if is_for_types(node))
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
    for module in MODULES:  # no module may import both
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
        for module in MODULES
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.ClassDef)
    ]
    assert duplicates(names) == TWICE.keys()


def duplicates(names: list[str]) -> set[str]:
    return {name for name, count in Counter(names).items() if count > 1}
