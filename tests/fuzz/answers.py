"""Fuzzer of the response parser: the same result for any split, and one kind of error."""

from __future__ import annotations

from typing import Any

from support.mutating import TRANSCRIPTS, fuzz

from gprochat_anyio.testing._transcripts import transcripts_in
from gprochat_anyio.transport._failures import ProtocolViolation
from gprochat_anyio.transport._response_parser import ResponseParser


def parsed(data: bytes, size: int, *, bodiless: bool) -> Any:
    """Parse the data in reads of one size."""
    parser = ResponseParser(bodiless=bodiless)
    body, refused = b"", False
    try:
        for start in range(0, len(data), size):
            if parser.complete:
                break  # the client stops reading here
            parser.feed(data[start : start + size])
            while parser.pieces or parser.violation:
                body += b"".join(parser.take())
    except ProtocolViolation:
        refused = True
    ended = parser.feed_eof()
    assert ended == parser.complete
    if parser.reusable:
        assert parser.complete
        assert not parser.surplus
    parser.release()
    head = (parser.status, parser.headers, parser.framing) if parser.head_complete else None
    return head, body, parser.complete, refused and not parser.complete


def TestOneInput(data: bytes) -> None:  # noqa: N802 - atheris requires the name
    if not data:
        return
    size, data = data[0] % 40 + 1, data[1:]
    bodiless = size == 40
    whole = parsed(data, max(1, len(data)), bodiless=bodiless)
    for each in (size, 1):
        split = parsed(data, each, bodiless=bodiless)
        assert split == whole, (each, split, whole)


def seeds() -> list[bytes]:
    found = [
        b"\x05HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"\x05HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\nuntil the end",
        b"\x05HTTP/1.1 204 No\r\n\r\n",
        b"\x05HTTP/1.1 200 OK\r\nA: b\r\n\tc\r\nContent-Length:\r\n 5\r\n\r\nhello",
        b"\x05HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\no\r\n0\r\nX: y\r\n\r\n",
    ]
    for transcript in transcripts_in([TRANSCRIPTS]):
        data = b"".join(read.data for read in transcript.response)
        found += [bytes((size,)) + data[:2000] for size in (2, 39)]
    return found


if __name__ == "__main__":
    fuzz(TestOneInput, seeds())
