"""Removal of secrets from recorded exchanges, without a change of their size.

A password may be any word, such as a keyword of HTTP or the wire. Whatever is needed to parse the
exchange is therefore kept. The password may also be an API's key.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_FIELD = re.compile(rb"(?m)^([^\s:]+):[ \t]*([^\r\n]*)")
_CHUNKED = re.compile(rb"(?im)^transfer-encoding:[ \t]*chunked\b")
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]+)[^\r\n]*\r\n")
_READ_BY = (  # header fields that are needed to parse a response
    *(b"connection", b"content-encoding", b"content-length", b"content-type", b"date"),
    *(b"keep-alive", b"retry-after", b"transfer-encoding"),
)
_JSON = re.compile(rb"(?im)^content-type:[ \t]*(?:text/event-stream|application/json)\b")
_STRING = re.compile(rb'"((?:[^"\\\r\n]|\\.)*)"([ \t]*:)?')
_WORDS = (  # members whose values are keywords of an API
    *("code", "finish_reason", "finishReason", "object", "reason", "retryDelay", "role"),
    *("status", "type"),
)
_LONG = 12
"""Minimum length of a key that cannot be a keyword of an API."""


def scrub_response(data: bytes, password: str | None) -> bytes:
    """Remove cookies, and the password in header fields and the body, from a response."""
    head_end = data.find(b"\r\n\r\n") + 4 if b"\r\n\r\n" in data else len(data)
    clean = bytearray(data)
    for field in _FIELD.finditer(data, 0, head_end):
        name, value = field[1].lower(), field[2]
        if name == b"set-cookie":
            value = b"*" * len(value)
        elif name not in _READ_BY:
            value = _without(value, password)
        clean[field.start(2) : field.end(2)] = value
    chunked = _CHUNKED.search(data, 0, head_end) is not None
    pieces = list(_pieces(data, head_end)) if chunked else [(head_end, len(data))]
    body = bytearray(_joined(data, pieces))
    is_json = _JSON.search(data, 0, head_end) is not None
    if is_json:
        for places in _values(body).values():
            _put(body, places, _without(_joined(body, places), password))
    if not is_json or len(password or "") >= _LONG:
        body[:] = _without(bytes(body), password)
    _put(clean, pieces, body)
    return bytes(clean)


def scrub_json(value: Any, password: str | None) -> Any:
    """Remove the password from the texts of a JSON value."""
    if isinstance(value, list):
        return [scrub_json(each, password) for each in value]
    if isinstance(value, dict):
        return {
            name: each if name in _WORDS and isinstance(each, str) else scrub_json(each, password)
            for name, each in value.items()
        }
    if isinstance(value, str) and password:
        return value.replace(password, "*" * len(password))
    return value


def scrub_texts(messages: Any, password: str | None) -> Any:
    """Remove the password from the texts of messages."""
    if isinstance(messages, list):
        return [scrub_texts(value, password) for value in messages]
    if isinstance(messages, dict):
        return {name: _text(name, value, password) for name, value in messages.items()}
    return messages


def _text(name: str, value: Any, password: str | None) -> Any:
    if name == "text" and isinstance(value, str) and password:
        return value.replace(password, "*" * len(password))
    return scrub_texts(value, password)


def _values(body: bytearray) -> Mapping[str, Sequence[tuple[int, int]]]:
    """Return the positions of a JSON body's strings, by the name of their member.

    An event stream splits a reply into many values of one name, and the password may span several.
    """
    name = ""
    places = defaultdict[str, list[tuple[int, int]]](list)
    for found in _STRING.finditer(body):
        if found[2] is not None:
            name = found[1].decode(errors="replace")
        elif name not in _WORDS:
            places[name].append(found.span(1))
    return places


def _joined(data: bytes | bytearray, places: Sequence[tuple[int, int]]) -> bytes:
    """Return the data at some positions, joined, as the password may span two of them."""
    return b"".join(data[start:end] for start, end in places)


def _put(data: bytearray, places: Sequence[tuple[int, int]], text: bytes | bytearray) -> None:
    """Write joined data back to its positions."""
    at = 0
    for start, end in places:
        data[start:end] = text[at : at + end - start]
        at += end - start


def _without(data: bytes, password: str | None) -> bytes:
    if password:
        in_json = (json.dumps(password, ensure_ascii=ascii_)[1:-1] for ascii_ in (True, False))
        for form in (*in_json, password):
            data = data.replace(form.encode(), b"*" * len(form.encode()))
    return data


def _pieces(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Yield the positions of a chunked body's data. Everything after an error counts as data."""
    size = -1
    while size and (line := _CHUNK_SIZE.match(data, at)):
        size = int(line[1], 16)
        yield line.end(), min(line.end() + size, len(data))
        at = line.end() + size + 2
    if at < len(data):
        yield at, len(data)
