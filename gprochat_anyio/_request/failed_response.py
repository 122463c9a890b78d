"""The library's exceptions for transport failures."""

from __future__ import annotations

from gprochat_anyio._errors import (
    GPROChatError,
    Phase,
    ReplyInterruptedError,
    RequestTimeoutError,
    SiteConnectionError,
    UnexpectedResponseError,
)
from gprochat_anyio.transport._failures import (
    ConnectFailure,
    ConnectionLost,
    TimedOut,
    TransportFailure,
)


def fields_of(pairs: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return header fields by lower-case name. Values of the same name are joined."""
    fields: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


def error_of(failure: TransportFailure) -> GPROChatError:
    """Return the exception for a transport failure before the first text."""
    if isinstance(failure, ConnectFailure):
        advice = "" if failure.final else "; check the URL, and whether the server is up"
        error = SiteConnectionError(f"{failure}{advice}")
        error.retryable = not failure.final
        return error
    if isinstance(failure, TimedOut):
        phase: Phase = "connect" if failure.connecting else "first_chunk"
        return RequestTimeoutError(f"a timeout of the transport: {failure}", phase=phase)
    if isinstance(failure, ConnectionLost) and not failure.answered:
        error = SiteConnectionError(f"{failure}; the server may be restarting: ask again")
        error.stale = failure.stale
        return error
    if isinstance(failure, ConnectionLost):
        return ReplyInterruptedError(f"{failure}; ask again")
    return UnexpectedResponseError(f"{failure}; check the URL")
