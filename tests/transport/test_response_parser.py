"""HTTP/1.1 response parsing without I/O: every response in one piece, byte by byte, and too
long."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations_with_replacement

import pytest
from support.garbage import without_garbage_collector

from gprochat_anyio.transport._failures import ProtocolViolation
from gprochat_anyio.transport._response_parser import HEAD_LIMIT, ResponseParser

from .parsing import feed, parse
from .responses import CHUNKED, NEXT, OK, REFUSED, SHAPES, Shape

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
