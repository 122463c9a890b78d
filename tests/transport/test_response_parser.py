"""HTTP/1.1 response parsing without I/O: every response in one piece, byte by byte, and too
long."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.garbage import without_garbage_collector
from support.tiers import examples

from gprochat_anyio.transport._failures import ProtocolViolation
from gprochat_anyio.transport._response_parser import HEAD_LIMIT, ResponseParser

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = OK + b"Content-Length: 3\r\n\r\nbad"


@dataclass
class Shape:
    """A response and its meaning."""

    wire: bytes
    body: bytes = b""
    status: int = 200
    framing: str = "none"
    reusable: bool = True
    bodiless: bool = False
    eof: bool = False


SHAPES = {
    "length": Shape(OK + b"Content-Length: 5\r\n\r\nhello", b"hello", framing="length"),
    "length of nothing": Shape(OK + b"Content-Length: 0\r\n\r\n", framing="length"),
    "length with blanks": Shape(OK + b"Content-Length: \t2 \r\n\r\nok", b"ok", framing="length"),
    "chunked": Shape(CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", b"hello", framing="chunked"),
    "chunked, nothing": Shape(CHUNKED + b"0\r\n\r\n", framing="chunked"),
    "chunked, odd sizes": Shape(
        CHUNKED + b"00A\r\n0123456789\r\n0b\r\n0123456789a\r\n000\r\n\r\n",
        b"01234567890123456789a",
        framing="chunked",
    ),
    "chunked, other case": Shape(
        OK + b"TRANSFER-encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok", framing="chunked"
    ),
    "chunked, blanks around": Shape(
        OK + b"Transfer-Encoding: \t chunked  \r\n\r\n0\r\n\r\n", framing="chunked"
    ),
    "chunk extensions": Shape(
        CHUNKED + b'2;a\r\nok\r\n1;b=c;d="e;f"\r\n!\r\n0;g=h\r\n\r\n', b"ok!", framing="chunked"
    ),
    "trailers": Shape(
        CHUNKED + b"2\r\nok\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n", b"ok", framing="chunked"
    ),
    "close-delimited": Shape(
        OK + b"\r\nup to the end", b"up to the end", framing="close", reusable=False, eof=True
    ),
    "close-delimited, nothing": Shape(OK + b"\r\n", framing="close", reusable=False, eof=True),
    "connection: close": Shape(
        OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok",
        b"ok",
        framing="length",
        reusable=False,
    ),
    "keep-alive, close": Shape(
        OK + b"Connection: keep-alive, Close\r\nContent-Length: 2\r\n\r\nok",
        b"ok",
        framing="length",
        reusable=False,
    ),
    "HTTP/1.0": Shape(
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", framing="length", reusable=False
    ),
    "HTTP/1.0, kept alive": Shape(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
        b"ok",
        framing="length",
    ),
    "HTTP/1.0, chunked": Shape(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nok\r\n0\r\n\r\n",
        b"ok",
        framing="chunked",
        reusable=False,
    ),
    "HTTP/1.0, close-delimited": Shape(
        b"HTTP/1.0 200 OK\r\n\r\nok", b"ok", framing="close", reusable=False, eof=True
    ),
    "204": Shape(b"HTTP/1.1 204 No Content\r\n\r\n", status=204),
    "204 with a length": Shape(b"HTTP/1.1 204 N\r\nContent-Length: 5\r\n\r\n", status=204),
    "204, chunked": Shape(b"HTTP/1.1 204 N\r\nTransfer-Encoding: chunked\r\n\r\n", status=204),
    "304": Shape(b"HTTP/1.1 304 N\r\nETag: x\r\nContent-Length: 5\r\n\r\n", status=304),
    "HEAD": Shape(OK + b"Content-Length: 5\r\n\r\n", bodiless=True),
    "HEAD, chunked": Shape(CHUNKED, bodiless=True),
    "HEAD, interim of an unknown status": Shape(
        b"HTTP/1.1 104 U\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\n", bodiless=True
    ),
    "HEAD without framing": Shape(OK + b"\r\n", bodiless=True, reusable=False),
    "100": Shape(
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok",
        b"ok",
        framing="length",
    ),
    "103, twice": Shape(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 2 + CHUNKED + b"0\r\n\r\n",
        framing="chunked",
    ),
    "102, then 404": Shape(
        b"HTTP/1.1 102 P\r\n\r\nHTTP/1.1 404 N\r\nContent-Length: 0\r\n\r\n",
        status=404,
        framing="length",
    ),
    **{
        f"interim of an unknown status, {name}": Shape(
            interim + CHUNKED + b"2\r\nok\r\n0\r\n\r\n", b"ok", framing="chunked"
        )
        for name, interim in {
            "104": b"HTTP/1.1 104 Upload Resumption Supported\r\nA: b\r\n\r\n",
            "199, twice": b"HTTP/1.1 199\r\n\r\n" * 2,
            "between others": b"HTTP/1.1 103 E\r\n\r\nHTTP/1.1 104 U\r\n\r\nHTTP/1.1 100 C\r\n\r\n",
        }.items()
    },
    "tab and obs-text in the reason": Shape(
        b"HTTP/1.1 200 \xc3\xa9\t!\r\nContent-Length: 0\r\n\r\n", framing="length"
    ),
    "empty reason": Shape(b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", framing="length"),
    "folded length": Shape(OK + b"Content-Length:\r\n 2\r\n\r\nok", b"ok", framing="length"),
    "fold of blanks": Shape(
        OK + b"Content-Length: 2\r\n \r\n\t \r\n\r\nok", b"ok", framing="length"
    ),
    "folded coding": Shape(
        OK + b"Transfer-Encoding:\r\n\tchunked\r\n\t\r\n\r\n5\r\na\r\n b\r\n0\r\n\r\n",
        b"a\r\n b",
        framing="chunked",
    ),
    "folded before a body like folds": Shape(
        OK + b"A: b\r\n c\r\nContent-Length: 9\r\n\r\n\r\n a\r\n\tb\r",
        b"\r\n a\r\n\tb\r",
        framing="length",
    ),
    "folds in every head": Shape(
        b"HTTP/1.1 103 E\r\nLink: a,\r\n\tb\r\n\r\n" * 2
        + OK
        + b"A: b,\r\n c\r\nContent-Length: 2\r\n\r\nok",
        b"ok",
        framing="length",
    ),
    "no reason": Shape(b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", framing="length"),
    "an upgrade is offered": Shape(
        b"HTTP/1.1 426 U\r\nUpgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nok",
        b"ok",
        status=426,
        framing="length",
    ),
}

REFUSED = {
    "both framings": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "both framings, turned": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    "both framings, in a trailer": CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "the same length twice": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
    **{
        f"length {length!r}": OK + b"Content-Length: " + length + b"\r\n\r\n"
        for length in (
            b"",
            b"5\r\n 6",
            b"5\r\n ,5",
            b"+5",
            b"-5",
            b"5, 5",
            b"0x5",
            b"5 5",
            b"1_0",
            b"\xb2",
            b"9" * 30,
        )
    },
    **{
        f"coding {coding!r}": OK + b"Transfer-Encoding: " + coding + b"\r\n\r\n0\r\n\r\n"
        for coding in (
            b"",
            b"gzip",
            b"identity",
            b"gzip, chunked",
            b"chunked, gzip",
            b"chunked, chunked",
            b"chunked;q=1",
            b"chunked\t",
            b"chunked \t ",
            b",chunked",
            b"chunked\r\n , chunked",
            b"\x0bchunked",
            b"xchunked",
        )
    },
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "gzip, then chunked": OK + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
    **{
        f"chunk {chunk!r}": CHUNKED + chunk
        for chunk in (
            b"x\r\n",
            b"\r\n",
            b"-2\r\nok\r\n",
            b"+2\r\nok\r\n",
            b"0x2\r\nok\r\n",
            b" 2\r\nok\r\n",
            b"2 \r\nok\r\n",
            b"2_0\r\n",
            b"2\nok\r\n",
            b"2\rok\r\n",
            b"2\r\nok\n0\r\n\r\n",
            b"2\r\nokX\r\n",
            b"2\r\nok0\r\n\r\n",
            b"1" + b"0" * 16 + b"\r\n",
            b"2;\r\nok\r\n",
            b"2;a\nb\r\nok\r\n",
            b"2;a\rb\r\nok\r\n",
            b"0\r\nno field\r\n\r\n",
            b"0\r\n folded: 1\r\n\r\n",
            b"0\r\nX: 1\r\n folded\r\n\r\n",
            b"0\r\nX: 1\n\r\n",
        )
    },
    **{
        f"{start!r} {name}": before + start + b" 200 OK\r\nContent-Length: 0\r\n\r\n"
        for start in (b"RTSP/1.0", b"ICE/1.0", b"HTTP/2.0", b"HTTP/0.9", b"\r\nHTTP/1.1")
        for name, before in {
            "after 100": b"HTTP/1.1 100 C\r\n\r\n",
            "after 104": b"HTTP/1.1 104 U\r\nA: b\r\n\r\n",
        }.items()
    },
    "RTSP/1.0": b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "ICE/1.0": b"ICE/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2.0, interim": b"HTTP/2.0 100 C\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\n\r\n",
    "http/1.1": b"http/1.1 200 OK\r\n\r\n",
    "101": b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    "101 of nothing": b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + OK,
    "status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status 099": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "status 000": b"HTTP/1.1 000 OK\r\n\r\n",
    **{
        f"{byte!r} in {name}": start + byte + b"K\r\nContent-Length: 0\r\n\r\n"
        for byte in (b"\0", b"\x01", b"\x0b", b"\x0c", b"\x1b", b"\x7f")
        for name, start in {
            "the reason": b"HTTP/1.1 200 O",
            "the reason after an interim head": b"HTTP/1.1 103 E\r\n\r\nHTTP/1.1 200 ",
            "a field": OK + b"A: b",
            "a folded field": OK + b"A: b\r\n c",
            "a name": OK + b"A",
        }.items()
    },
    "two blanks": b"HTTP/1.1  200 OK\r\n\r\n",
    "bare CR in the reason": b"HTTP/1.1 200 O\rK\r\n\r\n",
    "bare LF after the reason": b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
    "bare LF after a field": OK + b"A: b\nContent-Length: 0\r\n\r\n",
    "bare CR in a field": OK + b"A: b\rC: d\r\n\r\n",
    "bare LF ends the head": OK + b"Content-Length: 0\r\n\n",
    "a line break first": b"\r\n" + OK + b"Content-Length: 0\r\n\r\n",
    "blank before the colon": OK + b"Content-Length : 5\r\n\r\n",
    "no name": OK + b": 5\r\n\r\n",
    "no colon": OK + b"Content-Length\r\n\r\n",
    "a blank after the status line": OK + b" A: b\r\n\r\n",
    "a tab after the status line": OK + b"\tA: b\r\n\r\n",
    "a blank after the status line, then a fold": OK + b" A: b\r\n c\r\n\r\n",
    "a blank after an interim head": b"HTTP/1.1 100 C\r\n\r\n " + OK + b"\r\n",
    "a blank after a second status line": b"HTTP/1.1 103 E\r\nA: b\r\n\r\n" + OK + b" A: b\r\n\r\n",
    "a folded name": OK + b"Content-Length\r\n : 5\r\n\r\n",
    "a fold after a bare LF": OK + b"A: b\n c\r\n\r\n",
    "a fold after a bare CR": OK + b"A: b\r c\r\n\r\n",
    "only bare LFs": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "data after an interim close": b"HTTP/1.1 100 C\r\nConnection: close\r\n\r\n" + OK,
    **{
        f"an interim response that has a body: {field!r}": b"HTTP/1.1 104 U\r\n%b\r\n\r\n" % field
        for field in (b"Content-Length: 5", b"Transfer-Encoding: chunked")
    },
    "body of an interim response": b"HTTP/1.1 100 C\r\nContent-Length: 5\r\n\r\nhello" + NEXT,
    "HTML": b"<html><body>Sign in</body></html>",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
}


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


FRAMED = {name: shape for name, shape in SHAPES.items() if not shape.eof}


SIZES = (1, 2, 3, 7, 10_000)


class TestShapes:
    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    def test_is_parsed_in_parts_of_any_size(self, shape: Shape) -> None:
        for size in SIZES:
            response, body = parse(shape.wire, size, bodiless=shape.bodiless)

            assert response.head_complete
            assert response.complete is not shape.eof
            if shape.eof:
                assert response.feed_eof()
            assert (response.complete, response.status, body) == (True, shape.status, shape.body)
            assert response.framing == shape.framing
            assert response.reusable is shape.reusable
            assert not response.surplus

    @pytest.mark.parametrize(
        "trailing", [NEXT, b"X", b"HTTP/1.1 204 N\r\n\r\n", b"\0\0"], ids=["next", "X", "204", "0"]
    )
    @pytest.mark.parametrize("shape", FRAMED.values(), ids=FRAMED)
    def test_surplus_data_is_excluded_and_prevents_reuse(
        self, shape: Shape, trailing: bytes
    ) -> None:
        for size in SIZES:
            response, body = parse(shape.wire + trailing, size, bodiless=shape.bodiless)

            assert (response.complete, response.status, body) == (True, shape.status, shape.body)
            assert response.surplus
            assert not response.reusable

    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    def test_is_not_complete_when_cut_short(self, shape: Shape) -> None:
        for size in SIZES:
            for end in range(len(shape.wire)):
                response, body = parse(shape.wire[:end], size, bodiless=shape.bodiless)
                at_end = response.feed_eof()
                assert shape.body.startswith(body)
                assert not response.reusable
                assert at_end is (shape.framing == "close" and response.head_complete)
                response.release()


@pytest.mark.parametrize("wire", REFUSED.values(), ids=REFUSED)
def test_ambiguous_responses_are_refused(wire: bytes) -> None:
    for size in SIZES:
        with pytest.raises(ProtocolViolation) as caught:
            parse(wire, size)

        assert "response" in str(caught.value) or "peer" in str(caught.value)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_the_head_is_kept_as_sent() -> None:
    response, _ = parse(
        b"HTTP/1.1 418 I'm a teapot\r\nX-One:1\r\nx-two:  2 \t\r\nX-One: \xe9\r\nX-None:\r\n\r\n", 5
    )

    assert response.reason == b"I'm a teapot"
    assert response.version == "1.1"
    assert response.headers == [
        (b"X-One", b"1"),
        (b"x-two", b"2"),
        (b"X-One", b"\xe9"),
        (b"X-None", b""),
    ]


def test_interim_heads_and_trailers_are_dropped() -> None:
    response, _ = parse(
        b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + CHUNKED + b"1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n", 4
    )

    assert response.reason == b"OK"
    assert response.headers == [(b"Transfer-Encoding", b"chunked")]


def test_a_fold_becomes_blanks_for_any_split() -> None:
    wire = (
        OK
        + b"Content-Length:\r\n\t0\r\nX: one,\r\n two,\r\n\tthree\r\n  \r\nY:\r\n \r\nZ: z\r\n\r\n"
    )
    for first, second in combinations_with_replacement(range(1, len(wire)), 2):
        response = ResponseParser()
        for part in (wire[:first], wire[first:second], wire[second:]):
            if part:
                response.feed(part)
        assert response.reusable
        assert response.headers == [
            (b"Content-Length", b"0"),
            (b"X", b"one, two, three"),
            (b"Y", b""),
            (b"Z", b"z"),
        ]
        response.release()


@pytest.mark.parametrize(
    "rest",
    [b"X", b"\n0\r\n\r\n", b"0\r\n\r\n", b"\r\nzz\r\n", b"\r\n0\r\nno field\r\n\r\n"],
)
def test_a_malformed_chunk_is_one_violation_after_the_body_before_it(rest: bytes) -> None:
    wire = CHUNKED + b"2\r\nok" + rest
    for first, second in combinations_with_replacement(range(1, len(wire) + 1), 2):
        response, body = ResponseParser(), b""
        with pytest.raises(ProtocolViolation) as caught:
            for part in (wire[:first], wire[first:second], wire[second:]):
                if part:
                    response.feed(part)
                while pieces := response.take():
                    body += b"".join(pieces)
        assert body == b"ok"
        assert not response.feed_eof()
        for again in (response.take, lambda r=response: r.feed(b"more")):
            with pytest.raises(ProtocolViolation) as repeated:
                again()
            assert repeated.value is caught.value
        response.release()


def test_a_refused_head_stays_refused() -> None:
    response = ResponseParser()
    for data in (b"RTSP/1.0 200 OK\r\n\r\n", NEXT, NEXT):
        with pytest.raises(ProtocolViolation, match="does not start with `HTTP/`"):
            response.feed(data)

    assert not response.head_complete


def test_pieces_hold_body_only() -> None:
    response = ResponseParser()

    response.feed(CHUNKED + b"3\r\nhel\r\n2\r\nl")
    assert response.take() == [b"hel", b"l"]

    response.feed(b"o\r\n")
    assert response.take() == [b"o"]
    response.feed(b"0\r\n\r\n")
    assert response.take() == []
    assert response.complete


class TestBounds:
    """Limits on everything outside the body."""

    @pytest.mark.parametrize(
        ("start", "endless"),
        [
            (b"HTTP/1.1 200 ", b"O"),
            (OK, b"X: y\r\n"),
            (OK + b"X: ", b"y"),
            (OK, b"X" * 100),
            (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
            (b"", b"HTTP/1.1 104 U\r\n\r\n"),
        ],
        ids=["reason", "fields", "value", "name", "interim responses", "odd interim responses"],
    )
    def test_an_endless_head_is_refused(self, start: bytes, endless: bytes) -> None:
        response = ResponseParser()
        feed(response, start + endless * (HEAD_LIMIT // len(endless) - 50))

        with pytest.raises(ProtocolViolation, match="head is larger than 65536 bytes"):
            feed(response, endless * 1050)

    @pytest.mark.parametrize(
        ("start", "endless"),
        [(b"0\r\n", b"X: y\r\n"), (b"2;", b"a=b;"), (b"0\r\nX: ", b"y"), (b"", b"0")],
        ids=["trailers", "extensions", "trailer", "zeros"],
    )
    def test_endless_framing_is_refused(self, start: bytes, endless: bytes) -> None:
        response = ResponseParser()
        response.feed(CHUNKED + b"2\r\nok\r\n" + start)
        response.take()
        with pytest.raises(ProtocolViolation, match="chunk extensions is larger than 65536"):
            feed(response, endless * HEAD_LIMIT * 2)

    def test_a_head_just_within_the_limit_is_accepted(self) -> None:
        wire = OK + b"Content-Length: 0\r\nX: %b\r\n\r\n"
        response, _ = parse(wire % (b"y" * (HEAD_LIMIT - len(wire) + 2)), 1000)

        assert response.complete

    def test_an_endless_body_is_not_refused(self) -> None:
        response = ResponseParser()
        response.feed(CHUNKED)
        for _ in range(100):
            response.feed(b"1000;x=y\r\n" + b"a" * 0x1000 + b"\r\n")
            assert len(b"".join(response.take())) == 0x1000


@contextmanager
def gone_once_released() -> Iterator[ResponseParser]:
    """Assert that a parser is freed without the garbage collector, once released and dropped."""

    class Traced(ResponseParser):
        __slots__ = ("__weakref__",)

    with without_garbage_collector():
        response = Traced()
        yield response
        gone = weakref.ref(response)
        response.release()
        del response
        assert gone() is None


def test_release_leaves_no_cycle() -> None:
    with gone_once_released() as response:
        response.feed(CHUNKED + b"2\r\nok\r\n")
        del response


def test_a_failure_leaves_no_cycle_once_released() -> None:
    with gone_once_released() as response:
        with pytest.raises(ProtocolViolation):
            response.feed(b"HTTP/2.0 200 OK\r\n\r\n")
        del response


@st.composite
def chunked_bodies(draw: Any) -> tuple[bytes, bytes]:
    """Generate a body, and its encoding in chunks."""
    chunks = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=8))
    extension = st.sampled_from([b"", b";a", b";a=b", b';a="\\" b"'])
    wire = b"".join(b"%x%b\r\n%b\r\n" % (len(c), draw(extension), c) for c in chunks)
    return b"".join(chunks), wire + b"0\r\n" + draw(st.sampled_from([b"", b"T: x\r\n"])) + b"\r\n"


@given(framed=chunked_bodies(), cuts=st.lists(st.integers(1, 60), max_size=20))
def test_any_chunks_in_any_reads_give_the_body(
    framed: tuple[bytes, bytes], cuts: list[int]
) -> None:
    expected, wire = framed
    response = ResponseParser()
    rest, body = CHUNKED + wire, b""
    for cut in [*cuts, 10_000]:
        if rest[:cut]:
            response.feed(rest[:cut])
        body += b"".join(response.take())
        rest = rest[cut:]

    assert body == expected
    assert response.reusable
    response.release()


@given(st.binary(min_size=1, max_size=300), st.sampled_from([b"", OK, CHUNKED, CHUNKED + b"2\r\n"]))
def test_any_bytes_raise_only_violations(noise: bytes, start: bytes) -> None:
    response = ResponseParser()
    with suppress(ProtocolViolation):
        response.feed(start + noise)
        response.feed(noise)
        while response.take():
            pass
    response.release()


Meaning = tuple[int, list[tuple[bytes, bytes]], bytes]
"""Status, headers with lower-case names and single blanks, and body."""


def by_h11(wire: bytes) -> Meaning | None:
    """Parse with h11. Return None unless the data is one complete response."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    status, headers, body = 0, [], b""
    try:
        connection.receive_data(wire)
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                return None
            if isinstance(event, h11.Response):
                status, headers = event.status_code, list(event.headers)
            elif isinstance(event, h11.Data):
                body += event.data
    except h11.RemoteProtocolError:
        return None
    return status, [(name, b" ".join(value.split())) for name, value in headers], body


def by_ours(wire: bytes, size: int) -> Meaning | None:
    """Parse with `ResponseParser`, likewise."""
    try:
        response, body = parse(wire, size)
    except ProtocolViolation:
        return None
    headers = [(name.lower(), b" ".join(value.split())) for name, value in response.headers]
    response.release()
    return (response.status, headers, body) if response.complete else None


WHOLE = {
    "chunked": OK + b"Ab: cd\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nT: x\r\n\r\n",
    "length": OK + b"Ab: cd,\r\n\tef\r\nContent-Length: 2\r\n\r\nok",
    "interim": b"HTTP/1.1 103 E\r\nA: b\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok",
}


@pytest.mark.slow
@pytest.mark.parametrize("wire", WHOLE.values(), ids=WHOLE)
def test_a_changed_byte_passes_only_if_h11_agrees(wire: bytes) -> None:
    """Every byte of a response is replaced, and one is inserted at every offset."""
    assert by_ours(wire, 1) == by_h11(wire) is not None
    for at in range(len(wire)):
        for byte in (
            b"%c" % code for code in b'\0\x01\t\n\x0b\x0c\r\x1b 0129Aaxz-+_,:;="/.\x7f\x80\xff'
        ):
            for end in (at, at + 1):
                changed = wire[:at] + byte + wire[end:]
                ours = by_ours(changed, 10_000)
                assert ours in (None, by_h11(changed)), changed
                if ours is None:
                    assert by_ours(changed, 1) is None, changed


@examples(3)
@given(
    wire=st.sampled_from(list(WHOLE.values())),
    damage=st.lists(
        st.tuples(
            st.integers(0, 200),
            st.integers(0, 8),
            st.sampled_from(
                [b"", b"\r\n", b"\r\n ", b"\r\n\t", b"\0", b"0", b"HTTP/1.1 ", b": ", b"\n", b"\r"]
            ),
        ),
        min_size=1,
        max_size=4,
    ),
    size=st.integers(1, 30),
)
def test_accepted_data_agrees_with_h11_for_any_reads(
    wire: bytes, damage: list[tuple[int, int, bytes]], size: int
) -> None:
    for at, dropped, inserted in damage:
        wire = wire[:at] + inserted + wire[at + dropped :]
    ours, theirs = by_ours(wire, 10_000), by_h11(wire)

    assert by_ours(wire, size) == ours
    if ours is not None and theirs is not None:
        assert ours == theirs
