"""JSON bodies: one encoder for clients and sites, and decoders for received bodies."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import msgspec

_encode = msgspec.json.Encoder().encode  # 7 to 10 times as fast as `json`, with the same output


def encode_json(value: object) -> bytes:
    """Encode a value as compact JSON in UTF-8, as JavaScript's `JSON.stringify` does.

    A lone surrogate, which UTF-8 cannot represent, becomes a JSON escape.
    """
    try:
        return _encode(value)
    except (TypeError, UnicodeEncodeError):  # msgspec rejects subclasses of str
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return text.encode(errors="backslashreplace")


def decode_json(body: bytes, *, strict: bool = False) -> Any:
    """Decode a JSON body.

    :param strict: Accept only what a browser's `Response.json()` accepts: UTF-8, and no `NaN`.
    :raises ValueError: If the body is not JSON, or is nested too deeply.
    """
    try:
        if strict:
            return json.loads(body.decode("utf-8-sig"), parse_constant=_refuse_constant)
        return json.loads(body)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def decode_json_object(body: bytes) -> dict[str, Any]:
    """Decode a JSON object. Return an empty dictionary if the body is anything else."""
    try:
        value = decode_json(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
