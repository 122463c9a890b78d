"""The messages of a streamed answer, for an ASGI server.

Each is made anew: middleware may write into what it passes on, such as a cookie into a head.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import Message


def head(fields: Iterable[tuple[bytes, bytes]]) -> Message:
    """The start, with status 200."""
    return {"type": "http.response.start", "status": 200, "headers": list(fields)}


def part(data: bytes) -> Message:
    """A piece of the body."""
    return {"type": "http.response.body", "body": data, "more_body": True}


def end() -> Message:
    """The end of the body."""
    return {"type": "http.response.body", "body": b"", "more_body": False}
