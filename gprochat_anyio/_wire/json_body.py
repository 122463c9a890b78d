"""JSON bodies: one encoder for every end of the wire, and readers for what peers send."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import msgspec

_encode = msgspec.json.Encoder().encode  # 7 to 10 times as fast as `json`, and the same bytes


def encode_json(value: object) -> bytes:
    """Return a value as compact JSON in UTF-8, as JavaScript's `JSON.stringify` writes it.

    Half a surrogate pair, which has no UTF-8, becomes its JSON escape.
    """
    try:
        return _encode(value)
    except (TypeError, UnicodeEncodeError):  # msgspec takes no subclasses of str, json does
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return text.encode(errors="backslashreplace")


def decode_json(body: bytes, *, strict: bool = False) -> Any:
    """Return the value that a JSON body holds.

    :param strict: accept only what a browser's `Response.json()` accepts: UTF-8, and no `NaN`
    :raises ValueError: If the body is not JSON, or is nested too deeply.
    """
    try:
        if strict:
            return json.loads(body.decode("utf-8-sig"), parse_constant=_refuse_constant)
        return json.loads(body)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def decode_json_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a body holds, or an empty one if it holds anything else."""
    try:
        value = decode_json(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
