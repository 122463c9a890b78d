"""The APIs of a scripted site. A request's path selects one."""

from __future__ import annotations

from collections.abc import Mapping

from gprochat_anyio._wire.admission import Gate, Refusal, WireResponse
from gprochat_anyio._wire.json_body import decode_json_object

from ._dialect import Dialect, GPROChatDialect
from ._gemini_dialect import GeminiDialect
from ._openai_dialect import OpenAIDialect
from ._requests import Request

_DIALECTS: tuple[type[Dialect], ...] = (GPROChatDialect, OpenAIDialect, GeminiDialect)
_BY_API = {dialect.api: dialect for dialect in _DIALECTS}


def dialect_at(path: str) -> type[Dialect]:
    """Return the dialect of requests to a path."""
    if path.endswith("/chat/completions"):
        return OpenAIDialect
    if path.endswith(":streamGenerateContent"):
        return GeminiDialect
    return GPROChatDialect


def dialect_of(request: Request | None) -> Dialect:
    """Return a new dialect for the reply to a request, or to `None` if no script replies."""
    return GPROChatDialect(None) if request is None else _BY_API[request.api](request)


def read_request(
    gate: Gate, path: str, headers: Mapping[str, str], data: bytes, time: float
) -> Request:
    """Return the request, with empty values for the parts that are invalid."""
    dialect = dialect_at(path)
    body = decode_json_object(data)
    turns = dialect.turns(body)
    return Request(
        -1,
        path,
        dialect.api,
        headers,
        body,
        turns,
        signature_ok=dialect.is_signed(gate, body, turns[-1].text if turns else ""),
        password_ok=dialect.is_let_in(gate, headers, body),
        time=time,
    )


def refusal_of(gate: Gate, request: Request, data: bytes) -> WireResponse | None:
    """Return the response to a request that its API refuses, or `None`.

    :param data: The request's body.
    """
    try:
        _BY_API[request.api].admit(gate, request, data)
    except Refusal as refusal:
        return refusal.response
    return None
