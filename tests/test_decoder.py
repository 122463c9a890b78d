"""Exact text over any split, and the failure marker."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprochat_anyio._wire.text_decoder import ReplyDecoder
from gprochat_anyio.transport._parser import AnswerParser

MARKER = b"Internal server error"
MIXED = "aé€😀 Привет\n"
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def decode(reads: list[list[bytes]], size: int | None = None) -> tuple[list[str], str | None]:
    decoder = ReplyDecoder()
    texts = [decoder.feed(pieces, lambda _: size) for pieces in reads]
    decoder.finish()
    return texts, decoder.failure


def decode_wire(wire: list[bytes], *, failure_marker: bool = True) -> tuple[str, str | None]:
    """As the client does it: parse what each read brings, and decode that."""
    parser, decoder = AnswerParser(), ReplyDecoder(failure_marker=failure_marker)
    text = ""
    for data in wire:
        parser.feed(data)
        if pieces := parser.take():
            text += decoder.feed(pieces, parser.open_chunk_size)
    assert parser.complete
    decoder.finish()
    return text, decoder.failure


def on_the_wire(chunks: list[bytes]) -> bytes:
    return b"".join(b"%X\r\n%b\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\n"


def test_every_pair_of_splits() -> None:
    data = MIXED.encode()
    for first, second in combinations(range(len(data) + 1), 2):
        parts = [data[:first], data[first:second], data[second:]]
        texts, failure = decode([[part, b""] for part in parts])
        assert ("".join(texts), failure) == (MIXED, None)


@given(st.lists(st.text(min_size=1), min_size=1), st.data())
def test_any_text_in_any_chunks_over_any_reads(texts: list[str], data: st.DataObject) -> None:
    chunks = [text.encode("utf-8", "replace") for text in texts]
    wire = HEAD + on_the_wire(chunks)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(wire) - 1), max_size=8)))
    reads = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    assert decode_wire(reads) == (b"".join(chunks).decode(), None)


@given(st.text(), st.binary())
def test_invalid_bytes_fail_after_the_text_before_them(before: str, after: bytes) -> None:
    before = before.encode("utf-8", "ignore").decode()
    texts, failure = decode([[before.encode() + b"\xff" + after, b""], [b"more", b""]])
    assert (texts, failure) == ([before, ""], "it holds bytes that are no UTF-8")


@pytest.mark.parametrize("cut", [b"\xd0", b"\xe2\x82", b"\xf0\x9f\x98"])
def test_a_cut_character(cut: bytes) -> None:
    assert decode([[b"ab" + cut, b""]]) == (["ab"], "its last character is cut off")


@pytest.mark.parametrize("bad", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80"])
def test_invalid_bytes(bad: bytes) -> None:
    texts, failure = decode([[b"ab" + bad + b"cd", b""], [b"ef", b""]])
    assert texts == ["ab", ""]
    assert failure == "it holds bytes that are no UTF-8"


MARKED = [
    ([MARKER], "", True),
    ([b"a", MARKER], "a", True),
    ([MARKER, MARKER], MARKER.decode(), True),
    ([b"a" + MARKER], "a" + MARKER.decode(), False),
    ([MARKER + b"."], MARKER.decode() + ".", False),
    ([MARKER, b"I"], MARKER.decode() + "I", False),
    ([MARKER, b"a"], MARKER.decode() + "a", False),
    ([b"Internal ", b"server error"], MARKER.decode(), False),
    ([b"I"], "I", False),
    ([b"I", b"I"], "II", False),
    ([MARKER[:-1]], MARKER[:-1].decode(), False),
    ([MARKER.lower()], MARKER.lower().decode(), False),
    ([b"Internal server errors"], "Internal server errors", False),
]


@pytest.mark.parametrize(("chunks", "text", "failed"), MARKED)
def test_marker(chunks: list[bytes], text: str, failed: bool) -> None:
    """Over the wire whole, in single bytes, and split once at each place."""
    wire = HEAD + on_the_wire(chunks)
    splits = [[wire], [bytes([b]) for b in wire]]
    splits += [[wire[:at], wire[at:]] for at in range(1, len(wire))]
    for reads in splits:
        got, failure = decode_wire(reads)
        assert (got, failure is not None) == (text, failed), reads
        assert decode_wire(reads, failure_marker=False) == (b"".join(chunks).decode(), None)


def test_no_other_text_is_delayed() -> None:
    parser, decoder = AnswerParser(), ReplyDecoder()

    def feed(data: bytes) -> str:
        parser.feed(data)
        pieces = parser.take()
        return decoder.feed(pieces, parser.open_chunk_size) if pieces else ""

    assert feed(HEAD + b"7\r\nI") == "I"
    assert feed(b"nterna\r\n16;x=y\r\nInt") == "nternaInt"  # 22 bytes: one more than the marker
    assert feed(b"ernal server errors") == "ernal server errors"
    assert feed(b"\r\n15\r\nInt") == ""  # this may be it
    assert feed(b"o 21 bytes.") == "Into 21 bytes."
    assert feed(b"1234567\r\n") == "1234567"
    assert feed(b"0001" + b"5\r\nInternal server error") == ""
    assert feed(b"\r") == ""
    assert feed(b"\n1\r\n!") == "Internal server error!"


def test_unknown_chunk_size_waits() -> None:
    decoder = ReplyDecoder()
    assert decoder.feed([b"Int"], lambda _: None) == ""
    assert decoder.feed([b"erest", b""], lambda _: None) == "Interest"


@pytest.mark.parametrize(("held", "text"), [(b"Inter", "Inter"), (MARKER, ""), (b"", "")])
def test_broken_off_while_held_back(held: bytes, text: str) -> None:
    decoder = ReplyDecoder()
    decoder.feed([b"a", b"", *([held] if held else [])], lambda _: 21)
    assert decoder.cut() == text
