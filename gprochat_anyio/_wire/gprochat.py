"""The GPROChat wire without I/O: its constants, signing, and the client's requests.

The module `admission` is the site's end. `error_responses` reads responses that are not replies.
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
"""The content type of every JSON body, in both directions. The wire declares JSON as text."""

REPLY_CONTENT_TYPE = "text/plain; charset=utf-8"
"""The content type of a reply, whose body is the text itself."""

FAILURE_MARKER = b"Internal server error"
"""The text that ends a reply if its model failed after the response's head was sent."""

MODEL_FAILURE_CODE = "Error"
"""The `code` of the error response if the model failed before its first text."""


def sign(timestamp: int, text: str, secret_key: str) -> str:
    """Return a request's signature: lower-case hex SHA-256 of `timestamp:text:secret_key`.

    :param timestamp: The Unix time in milliseconds.
    :param text: The last message's parts, concatenated.
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

    :param messages: The history, as `messages.history` returns it. The last message is the user's.
    :param timestamp: The Unix time in milliseconds. `None` for the current time.
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
    """Return True if a response of `/api/auth` accepts the password.

    :raises UnexpectedResponseError: If the response neither accepts nor rejects it.
    """
    code = decode_json_object(body).get("code")
    if code not in (0, -1) or isinstance(code, bool):
        raise UnexpectedResponseError(
            "the response to the password check is not a GPROChat site's; check the site's URL",
            status=200,
        )
    return bool(code == 0)
