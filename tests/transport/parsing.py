"""Parsing of a response in parts of any size."""

from __future__ import annotations

from collections.abc import Iterator

from gprochat_anyio.transport._response_parser import ResponseParser


def parts(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def feed(response: ResponseParser, data: bytes) -> None:
    for part in parts(data, 1000):
        response.feed(part)


def parse(wire: bytes, size: int, *, bodiless: bool = False) -> tuple[ResponseParser, bytes]:
    """Parse data in pieces of a given size. Return the parser and the body."""
    response = ResponseParser(bodiless=bodiless)
    body = b""
    for part in parts(wire, size):
        response.feed(part)
        while pieces := response.take():
            body += b"".join(pieces)
    return response, body
