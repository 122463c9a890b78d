"""JSON of lines: msgspec where it agrees with `json`, and `json` for the rest."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

from gprochat_anyio import InvalidPromptError
from gprochat_anyio._wire.json_body import encode_json

UNDECODABLE: Final = (msgspec.DecodeError, ValueError, RecursionError)
"""Errors of msgspec's decoders."""

_decode: Final = msgspec.json.Decoder().decode
# Characters that JSON does not escape, but that end a line for some readers or control a terminal.
_UNESCAPED: Final = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")


class JSONFields(dict[str, Any]):
    """Fields decoded from JSON, which can therefore be encoded again."""


def decode_fields(line: bytes) -> dict[str, Any] | InvalidPromptError:
    """Return the object on a line, or the reason why the line is invalid."""
    try:
        fields = _decode(line)
    except UNDECODABLE:  # json accepts half a surrogate pair, and locates errors
        return _decode_slowly(line)
    if not isinstance(fields, dict):
        return InvalidPromptError('not a JSON object; write {"prompt": "..."}')
    return JSONFields(fields)


def encode_fields(fields: dict[str, Any], *, known: bool) -> bytes:
    """Return fields as a JSON object.

    :param known: Whether the fields were decoded from JSON. msgspec would also accept values that
        are not JSON values.
    :raises TypeError: If a value is not a JSON value. `ValueError` and `RecursionError` may be
        raised as well.
    """
    if known:
        return encode_json(fields)
    return _encode_strictly(fields).encode(errors="backslashreplace")


def encode_line(head: bytes, rest: dict[str, Any]) -> bytes:
    """Return a line of the output, without characters that end lines or control a terminal.

    :param head: A JSON object without its closing brace.
    """
    line = b"%b,%b\n" % (head, encode_json(rest)[1:])
    if line.isascii() and b"\x7f" not in line:
        return line
    return _UNESCAPED.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), line)


def _decode_slowly(line: bytes) -> dict[str, Any] | InvalidPromptError:
    try:
        fields = json.loads(line.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        return InvalidPromptError(f"not UTF-8: invalid byte at offset {error.start}")
    except json.JSONDecodeError as error:
        return InvalidPromptError(f"invalid JSON: {error.msg}, at column {error.colno}")
    except (ValueError, RecursionError):  # NaN, a number of 5,000 digits, too deep
        return InvalidPromptError("unsupported JSON: NaN, too long a number, or too many levels")
    if not isinstance(fields, dict):
        return InvalidPromptError('not a JSON object; write {"prompt": "..."}')
    return fields


def _refuse_constant(name: str) -> float:
    raise ValueError(name)


_encode_strictly = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":")
).encode
