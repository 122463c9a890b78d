"""The decoder and the parser against simple models: any text, in any chunks and reads, intact or
damaged."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from itertools import combinations

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.response_bytes import REPLY_HEAD
from support.scripted import reply
from support.tiers import examples

from gprochat_anyio._wire.reply_decoder import TextDecoder
from gprochat_anyio.transport._failures import ProtocolViolation
from gprochat_anyio.transport._response_parser import HEAD_LIMIT, ResponseParser

MARKER = b"Internal server error"
MIXED = "aé€😀ж\u200d"  # characters of 1, 2, 3, 4, 2 and 3 bytes

Outcome = tuple[str, bool, bool]
"""The text, whether the response is complete, and whether it is invalid."""


def receive(
    reads: Sequence[bytes], *, failure_marker: bool = True, max_size: int | None = None
) -> Outcome:
    """Return what a client receives from these reads."""
    parser = ResponseParser()
    decoder = TextDecoder(failure_marker=failure_marker, max_size=max_size)
    text = ""
    try:
        for data in reads:
            parser.feed(data)
            while pieces := parser.take():
                text += "".join([decoder.feed(piece) for piece in pieces])
                if decoder.failure is not None:
                    return text + decoder.cut(), False, True
    except ProtocolViolation:
        return text + decoder.cut(), False, True
    finally:
        parser.release()
    if not parser.complete:
        return text + decoder.cut(), False, False
    text += decoder.finish()
    return text, True, decoder.failure is not None


def cut_at(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({cut for cut in cuts if 0 < cut < len(data)})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def wire_of(chunks: Sequence[bytes]) -> bytes:
    return reply(*chunks)


def model(chunks: Sequence[bytes], max_size: int | None = None) -> Outcome:
    """Return what these chunks encode. Their boundaries carry no information."""
    body = b"".join(chunks)
    too_large = max_size is not None and len(body) > max_size
    failed = not too_large and body.endswith(MARKER)
    body = body[:max_size].removesuffix(MARKER if failed else b"")
    try:
        codecs.utf_8_decode(body, "strict", False)
    except UnicodeDecodeError as error:
        body = body[: error.start]
        return body.decode(), too_large or failed, True
    text, used = codecs.utf_8_decode(body, "strict", False)
    return text, not too_large, too_large or failed or used < len(body)


@pytest.mark.slow
def test_every_split_into_two_and_three_chunks_and_writes() -> None:
    data = MIXED.encode()
    for first, second in combinations(range(len(data) + 1), 2):
        chunks = [c for c in (data[:first], data[first:second], data[second:]) if c]
        assert receive([wire_of(chunks)]) == (MIXED, True, False)
    for whole in ([data], [data[:4], data[4:]], [bytes([byte]) for byte in data]):
        wire = wire_of(whole)
        body = range(len(REPLY_HEAD) - 2, len(wire) + 1)
        for first, second in combinations(body, 2):
            assert receive(cut_at(wire, [first, second])) == (MIXED, True, False)


CHUNKS = st.lists(
    st.one_of(
        st.text(min_size=1, max_size=12).map(lambda text: text.encode("utf-8", "replace")),
        st.sampled_from([MARKER, MARKER[:5], MARKER[5:], MARKER + b"s", b"a" + MARKER, b"I"]),
        st.binary(min_size=1, max_size=6),
    ),
    max_size=6,
)
CUTS = st.lists(st.integers(1, 400), max_size=12)


@examples(4)
@given(CHUNKS, CUTS, st.none() | st.integers(1, 80))
@example([MARKER, MARKER], [], 21)
@example([MARKER, b"x"], [], 21)
@example([b"ab", MARKER], [], 10)
def test_any_chunks_over_any_reads(
    chunks: list[bytes], cuts: list[int], max_size: int | None
) -> None:
    text, complete, wrong = model(chunks, max_size)
    for reads in (cut_at(wire_of(chunks), cuts), [bytes([b]) for b in wire_of(chunks)]):
        got, finished, failed = receive(reads, max_size=max_size)
        assert (got, finished and not failed) == (text, complete and not wrong)


@examples(3)
@given(CHUNKS, CUTS, st.integers(0, 400))
def test_any_truncation_gives_a_prefix(chunks: list[bytes], cuts: list[int], end: int) -> None:
    wire = wire_of(chunks)
    text, complete, _ = receive(cut_at(wire[: min(end, len(wire) - 1)], cuts) if end else [])
    whole, _, _ = receive([wire], failure_marker=False)
    assert whole.startswith(text)
    assert not complete


ANSWERS = st.sampled_from(
    [
        wire_of(["é😀".encode(), b"two", b"three" * 9]),
        wire_of([b"a", MARKER]),
        REPLY_HEAD + b"5;ext=1\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + wire_of([b"late"]),
    ]
)
DAMAGE = st.lists(
    st.tuples(
        st.sampled_from(["flip", "drop", "insert", "double"]),
        st.integers(0, 300),
        st.sampled_from([*b"\r\n\0 0159af;:,-", 0x80, 0xFF]),
    ),
    min_size=1,
    max_size=4,
)


def damaged(wire: bytes, damage: list[tuple[str, int, int]]) -> bytes:
    data = bytearray(wire)
    for what, where, byte in damage:
        at = where % len(data)
        if what == "flip":
            data[at] = byte
        elif what == "drop":
            del data[at]
        elif what == "insert":
            data.insert(at, byte)
        else:
            data[at:at] = data[max(0, at - 9) : at]
    return bytes(data)


def by_h11(wire: bytes) -> bytes | None:
    """Return the body according to h11, or None if the response is incomplete."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    body = b""
    try:
        connection.receive_data(wire)
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                return None
            body += event.data if isinstance(event, h11.Data) else b""
    except h11.RemoteProtocolError:
        return None
    return body


@pytest.mark.slow
@examples(5)
@given(ANSWERS, DAMAGE, CUTS)
def test_damage_is_never_taken_for_another_reply(
    wire: bytes, damage: list[tuple[str, int, int]], cuts: list[int]
) -> None:
    """The result does not depend on the reads, and h11 agrees on any response that passes."""
    wire = damaged(wire, damage)
    whole = receive([wire], failure_marker=False)
    for reads in (cut_at(wire, cuts), [bytes([byte]) for byte in wire]):
        assert receive(reads, failure_marker=False) == whole
    text, complete, wrong = whole
    other = by_h11(wire)
    if complete and not wrong and other is not None:
        assert other.decode() == text


@examples(2)
@given(
    st.binary(max_size=300),
    st.integers(1, 700),
    st.sampled_from([b"", REPLY_HEAD, REPLY_HEAD + b"2;"]),
)
def test_the_number_of_buffered_bytes_is_limited(data: bytes, times: int, start: bytes) -> None:
    parser, decoder, taken = ResponseParser(), TextDecoder(), 0
    try:
        for part in (start, *[data] * times):
            if part:
                parser.feed(part)
            while pieces := parser.take():
                taken += sum(len(decoder.feed(piece)) for piece in pieces)
                assert len(decoder._held) + len(decoder._undecoded) < 25
            assert sum(len(n) + len(v) for n, v in parser.headers) <= HEAD_LIMIT + len(data)
    except ProtocolViolation:
        pass
    parser.release()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 10, 13, 14, 15])
def test_the_largest_reply_is_cut_at_a_whole_character(size: int) -> None:
    data = MIXED.encode()
    text = data[:size].decode("utf-8", "ignore")
    for reads in ([wire_of([data])], [bytes([b]) for b in wire_of([data])]):
        got, complete, wrong = receive(reads, max_size=size)
        assert (got, complete and not wrong) == (text, size >= len(data))
