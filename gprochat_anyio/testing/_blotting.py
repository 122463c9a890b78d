"""Takes secrets out of an exchange, whose other bytes keep their places.

A password can be any word, and so one of those that HTTP and the wire are made of: what it takes to
read the exchange is left as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_FIELD = re.compile(rb"(?m)^([^\s:]+):[ \t]*([^\r\n]*)")
_CHUNKED = re.compile(rb"(?im)^transfer-encoding:[ \t]*chunked\b")
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]+)[^\r\n]*\r\n")
_READ_BY = (  # the fields without which an answer reads otherwise
    *(b"connection", b"content-encoding", b"content-length", b"content-type", b"date"),
    *(b"keep-alive", b"retry-after", b"transfer-encoding"),
)


def blotted_answer(data: bytes, password: str | None) -> bytes:
    """An answer without cookies, and without the password in its fields and its body."""
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
    # together, as the password may go over the border of two
    body = _without(b"".join(data[start:end] for start, end in pieces), password)
    at = 0
    for start, end in pieces:
        clean[start:end] = body[at : at + end - start]
        at += end - start
    return bytes(clean)


def blotted_texts(messages: Any, password: str | None) -> Any:
    """Messages without the password in their texts."""
    if isinstance(messages, list):
        return [blotted_texts(value, password) for value in messages]
    if isinstance(messages, dict):
        return {name: _text(name, value, password) for name, value in messages.items()}
    return messages


def _text(name: str, value: Any, password: str | None) -> Any:
    if name == "text" and isinstance(value, str) and password:
        return value.replace(password, "*" * len(password))
    return blotted_texts(value, password)


def _without(data: bytes, password: str | None) -> bytes:
    if password:
        in_json = (json.dumps(password, ensure_ascii=ascii_)[1:-1] for ascii_ in (True, False))
        for form in (password, *in_json):
            data = data.replace(form.encode(), b"*" * len(form.encode()))
    return data


def _pieces(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Where the text in a chunked body is; all from where it can not be read counts as text."""
    size = -1
    while size and (line := _CHUNK_SIZE.match(data, at)):
        size = int(line[1], 16)
        yield line.end(), min(line.end() + size, len(data))
        at = line.end() + size + 2
    if at < len(data):
        yield at, len(data)
