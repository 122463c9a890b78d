"""The GPROChat wire without I/O: its constants, signing, and the client's requests.

`admission` is the site's end; `error_responses` reads what a site sends instead of a reply.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

from gprochat_anyio._errors import UnexpectedResponseError
from gprochat_anyio._redaction import Hidden

from .json_body import decode_json_object, encode_json
from .messages import Message, folded

GENERATE_PATH = "/api/generate"
AUTH_PATH = "/api/auth"
REQUEST_CONTENT_TYPE = "text/plain;charset=UTF-8"
"""The content type of every JSON body, in both directions: the wire declares JSON as text."""

REPLY_CONTENT_TYPE = "text/plain; charset=utf-8"
"""The content type of a reply, whose body is the text itself."""

FAILURE_MARKER = b"Internal server error"
"""The last text of a reply whose model failed after the response's head was sent."""

MODEL_FAILURE_CODE = "Error"
"""The `code` of an error response if the model failed before its first text."""


def sign(timestamp: int, text: str, secret_key: str) -> str:
    """Return a request's signature: lower-case hex SHA-256 of `timestamp:text:secret_key`.

    :param timestamp: Unix time in milliseconds
    :param text: the concatenation of the last message's parts
    """
    return hashlib.sha256(f"{timestamp}:{text}:{secret_key}".encode()).hexdigest()


def encode_generate(
    messages: Sequence[Message],
    *,
    secret_key: str,
    password: str | None,
    timestamp: int | None = None,
) -> bytes:
    """Encode and sign the body of `POST /api/generate` for a history.

    :param messages: as `messages.history` returns them; the last one is the user's
    :param timestamp: Unix time in milliseconds; `None` for the current time
    """
    messages = folded(messages)
    if timestamp is None:
        timestamp = time.time_ns() // 1_000_000
    return Hidden(
        encode_json(
            {
                "messages": [
                    {"role": m.wire_role, "parts": [{"text": m.content}]} for m in messages
                ],
                "time": timestamp,
                "pass": password,
                "sign": sign(timestamp, messages[-1].content, secret_key),
            }
        )
    )


def encode_auth(password: str | None) -> bytes:
    """Encode the body of `POST /api/auth`."""
    return Hidden(encode_json({"pass": password if password is not None else ""}))


def decode_auth(body: bytes) -> bool:
    """Return True if a response of `/api/auth` says that the password is right.

    :raises UnexpectedResponseError: If it says neither that nor the opposite.
    """
    code = decode_json_object(body).get("code")
    if code not in (0, -1) or isinstance(code, bool):
        raise UnexpectedResponseError(
            "the answer to the password check is not one of a GPROChat site; check the site's URL",
            status=200,
        )
    return bool(code == 0)
