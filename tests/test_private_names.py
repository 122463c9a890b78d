"""A test imports private names only of the module that it tests.

Helpers in `tests/support/` may import any, so that each private name is used in one place. The
fuzzers and the soak run test the layers below the client.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ANY = ("support", "fuzz", "soak")

TESTED = {
    "batch": "batch",
    "cli": "cli",
    "client": "_client",
    "conversation": "_conversation",
    "fanout": "_fanout",
    "fleet": "_fleet",
    "request": "_request",
    "site": "site",
    "sync": "_sync",
    "testing": "testing",
    "transport": "transport",
    "wire": "_wire",
}
"""The package that the tests of a folder cover."""

ALSO: dict[str, str] = {
    "batch/test_coordinator.py": "_request.leased_limiter.Demand _request.request_events.Observed",
    "batch/test_lease_book.py": "_request.leased_limiter.Demand",
    "batch/test_lease_keeper.py": (
        "_request.leased_limiter.Demand _request.request_events.Observed"
    ),
    "batch/test_batch_records.py": "_request.reply.Reply _request.reply.Timing",
    "cli/test_cli_check.py": "transport._tls",
    "cli/test_cli_help.py": "__main__",
    "client/test_client.py": (
        "_request.chat_client.opener_of _wire.gprochat.sign _wire.gprochat_wire.GPROChatWire"
    ),
    "client/test_model_client.py": "_wire.usage.Usage",
    "client/test_model_list.py": "_request.address.SiteAddress _request.chat_client.opener_of",
    "docs/test_docs.py": "cli._exit_codes.exit_status cli._main.gprochat",
    "docs/test_readme.py": "cli._exit_codes.exit_status",
    "fanout/test_race.py": "_request.endpoint.Endpoint",
    "fleet/test_fleet.py": "_request.chat_client.opener_of",
    "fleet/test_fleet_leaves_nothing.py": "_request.chat_client.opener_of",
    "fleet/test_fleet_outages.py": "_request.chat_client.opener_of",
    "fleet/test_fleet_waits.py": (
        "_request.chat_client.opener_of _request.opener.PreparedRequest _request.sinks.Collector"
    ),
    "guarantees/test_bounds.py": (
        "_request.building.MAX_REPLY_SIZE _wire.error_responses.ERROR_BODY_LIMIT "
        "_wire.server_sent_events.MAX_EVENT_SIZE transport._connection.READ_SIZE "
        "transport._response_parser.HEAD_LIMIT"
    ),
    "guarantees/test_end_of_reply.py": "transport._reactor.current_reactor",
    "guarantees/test_exact_text.py": (
        "_wire.reply_decoder.TextDecoder transport._failures.ProtocolViolation "
        "transport._response_parser.HEAD_LIMIT transport._response_parser.ResponseParser"
    ),
    "guarantees/test_faults.py": "_errors.Phase transport._connecting",
    "guarantees/test_interrupts.py": (
        "_request.deadlines.Deadlines _wire.reply_decoder.TextDecoder "
        "transport._asyncio_loop.AsyncioSignal transport._connecting transport._names "
        "transport._names.Address transport._pumped_connection.PumpedConnection "
        "transport._trio_loop.TrioSignal"
    ),
    "guarantees/test_models_are_closed.py": (
        "testing._injection.Injection testing._injection.cancelled"
    ),
    "guarantees/test_models_in_time.py": "_request.incoming.HIGH _request.incoming.LOW",
    "guarantees/test_no_blocking.py": "transport._tls",
    "guarantees/test_no_leak.py": "batch._journal",
    "guarantees/test_prefix.py": (
        "_wire.reply_decoder.TextDecoder transport._response_parser.ResponseParser"
    ),
    "guarantees/test_secrets_of_apis.py": "_request.chat_client.opener_of",
    "guarantees/test_shields.py": (
        "_request.model_texts.CLOSING_SECONDS _request.model_texts.Texts batch._journal.Journal"
    ),
    "guarantees/test_transcripts.py": "_wire.gprochat.encode_generate _wire.messages.Message",
    "request/test_retry.py": "transport._connecting transport._names.Address",
    "request/test_stream.py": "_wire.reply_decoder.TextDecoder",
    "site/test_site_any_json.py": (
        "_wire.admission.Gate _wire.admission.Refusal _wire.gprochat.sign"
    ),
    "site/test_site_connection.py": (
        "_accepting _accepting.accept_connections _accepting.listen "
        "transport._reactor.current_reactor transport._target.Target"
    ),
    "site/test_site_gate.py": (
        "_wire.admission.Gate _wire.admission.Refusal _wire.admission.WireResponse "
        "_wire.gprochat.sign"
    ),
    "site/test_site_behind_proxies.py": "_wire.gprochat.GENERATE_PATH",
    "site/test_site_hostile.py": (
        "_wire.admission _wire.gprochat.AUTH_PATH _wire.gprochat.GENERATE_PATH"
    ),
    "site/test_site_reply.py": "_wire.gprochat.FAILURE_MARKER _wire.gprochat.GENERATE_PATH",
    "site/test_site_serve.py": "_request.model_texts",
    "site/test_site_wire.py": (
        "_wire.gprochat.AUTH_PATH _wire.gprochat.FAILURE_MARKER _wire.gprochat.encode_auth "
        "_wire.gprochat.encode_generate _wire.messages.history"
    ),
    "test_provider.py": "_wire.gprochat.sign",
    "testing/test_testing_forbid.py": (
        "transport._http_library.httpx transport._wiring.is_loopback transport._wiring.switches"
    ),
    "testing/test_testing_leaks.py": "_request.chat_client.opener_of transport._http_library.httpx",
    "testing/test_testing_record.py": (
        "_request.chat_client.opener_of transport._connection.Connection "
        "transport._http_library.httpx"
    ),
    "wire/test_wire_admission.py": "site._app testing._scripted_site",
}
"""Private names of other modules in tests: limits, the peer's end of the wire, and names that are
replaced to reach a moment. Add one only if no helper in `tests/support/` can avoid it."""


def private_names(path: Path) -> Iterator[str]:
    """Yield the library's private modules and names that a test imports, without the package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            private = any(part.startswith("_") for part in rest.split("."))
            if package == "gprochat_anyio" and private and rest != "__version__":
                yield rest


@pytest.mark.slow
def test_only_of_the_module_under_test() -> None:
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("*.py")):
        folder, *_ = path.relative_to(TESTS).parts
        for name in private_names(path):
            if folder not in ANY and name.partition(".")[0] != TESTED.get(folder):
                found.setdefault(path.relative_to(TESTS).as_posix(), []).append(name)
    assert {path: " ".join(sorted(names)) for path, names in found.items()} == ALSO
