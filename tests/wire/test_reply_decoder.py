"""The reply decoder: exact text for any split, the failure marker and the size limit."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Sequence
from itertools import combinations, combinations_with_replacement, pairwise
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.tiers import examples

from gprochat_anyio._wire.reply_decoder import TextDecoder

MARKER = b"Internal server error"
MIXED = "aé€😀ж\u200dI"  # characters of 1, 2, 3, 4, 2, 3 and 1 bytes

NOT_UTF_8 = "it holds bytes that are not UTF-8"
CUT_OFF = "its last character is cut off"
MODEL_FAILED = (
    "the site reported that its model failed (if the model says `Internal server error` itself, "
    "set failure_marker=False)"
)

Result = tuple[str, str | None]
"""The text and the failure."""


def too_large(size: int) -> str:
    return f"it is larger than max_reply_size, {size} bytes"


def decode(
    parts: Sequence[bytes],
    *,
    complete: bool = True,
    failure_marker: bool = True,
    max_size: int | None = None,
) -> Result:
    decoder = TextDecoder(failure_marker=failure_marker, max_size=max_size)
    text = "".join([decoder.feed(part) for part in parts])
    end = decoder.finish if complete else decoder.cut
    text += end()
    assert end() == ""
    return text, decoder.failure


def model(
    body: bytes,
    *,
    complete: bool = True,
    failure_marker: bool = True,
    max_size: int | None = None,
) -> Result:
    """Decode a complete body in the simplest way."""
    large = max_size is not None and len(body) > max_size
    body = body[:max_size]
    marked = failure_marker and not large and body.endswith(MARKER)
    if marked:
        body = body.removesuffix(MARKER)
    try:
        text, used = codecs.utf_8_decode(body, "strict", False)
    except UnicodeDecodeError as error:
        return body[: error.start].decode(), NOT_UTF_8
    if large:
        return text, too_large(max_size or 0)
    if not complete:
        return text, None
    if marked:
        return text, MODEL_FAILED
    return text, CUT_OFF if used < len(body) else None


def splits(body: bytes) -> list[list[bytes]]:
    """Return the body whole, in single bytes, and split at every pair of offsets."""
    return [
        [body[i : i + 1] for i in range(len(body))],
        *(
            [body[:first], body[first:second], body[second:]]
            for first, second in combinations_with_replacement(range(len(body) + 1), 2)
        ),
    ]


def test_every_pair_of_splits() -> None:
    data = MIXED.encode()
    for first, second in combinations(range(len(data) + 1), 2):
        assert decode([data[:first], data[first:second], data[second:]]) == (MIXED, None)


@pytest.mark.parametrize("cut", [b"\xd0", b"\xe2\x82", b"\xf0\x9f\x98"])
def test_a_cut_character(cut: bytes) -> None:
    for parts in splits(b"ab" + cut):
        assert decode(parts) == ("ab", CUT_OFF)
        assert decode(parts, complete=False) == ("ab", None)
    assert decode([b"ab", cut, MARKER]) == ("ab", MODEL_FAILED)
    assert decode([b"ab", cut, MARKER, b"."]) == ("ab", NOT_UTF_8)


@pytest.mark.parametrize(
    "bad", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82I", b"\x80"]
)
def test_invalid_bytes_fail_after_the_text_before_them(bad: bytes) -> None:
    for end in (b"", b"cd", MARKER, MARKER[:-1]):
        for parts in splits(b"ab" + bad + end):
            assert decode(parts) == ("ab", NOT_UTF_8)


def test_everything_after_a_failure_is_dropped() -> None:
    decoder = TextDecoder(max_size=9)

    assert decoder.feed(b"ab\xffcd Int") == "ab"
    assert [decoder.feed(b"ef"), decoder.feed(b"0123456789"), decoder.feed(MARKER)] == [""] * 3
    assert (decoder.finish(), decoder.cut()) == ("", "")
    assert decoder.failure == NOT_UTF_8


MARKED = {
    "alone": (MARKER, "", True),
    "merged with the text before it": (b"so far" + MARKER, "so far", True),
    "merged with a line before it": (b"so far\n\n" + MARKER, "so far\n\n", True),
    "after its own first letter": (b"I" + MARKER, "I", True),
    "after its own beginning": (b"Internal" + MARKER, "Internal", True),
    "twice": (MARKER * 2, MARKER.decode(), True),
    "three times": (MARKER * 3, MARKER.decode() * 2, True),
    "after other characters": ("é😀".encode() + MARKER, "é😀", True),
    "then a dot": (MARKER + b".", MARKER.decode() + ".", False),
    "then a line break": (MARKER + b"\n", MARKER.decode() + "\n", False),
    "then its first letter": (MARKER + b"I", MARKER.decode() + "I", False),
    "then its beginning": (MARKER + MARKER[:-1], (MARKER + MARKER[:-1]).decode(), False),
    "first letter": (b"I", "I", False),
    "first letter, twice": (b"II", "II", False),
    "without its last letter": (MARKER[:-1], MARKER[:-1].decode(), False),
    "in lower case": (MARKER.lower(), MARKER.lower().decode(), False),
    "plural": (MARKER + b"s", MARKER.decode() + "s", False),
    "within": (b"a" + MARKER + b"b", f"a{MARKER.decode()}b", False),
    "nothing": (b"", "", False),
}


@pytest.mark.parametrize(("body", "text", "failed"), MARKED.values(), ids=MARKED)
def test_a_reply_that_ends_with_the_marker_has_failed(body: bytes, text: str, failed: bool) -> None:
    for parts in splits(body):
        assert decode(parts) == (text, MODEL_FAILED if failed else None), parts
        assert decode(parts, complete=False) == (text, None), parts
        assert decode(parts, failure_marker=False) == (body.decode(), None)


def test_only_a_tail_that_may_become_the_marker_is_held_back() -> None:
    decoder = TextDecoder()

    assert decoder.feed(b"Interest, I") == "Interest, "
    assert decoder.feed(b"nterna") == ""
    assert decoder.feed(b"tional In") == "International "
    assert decoder.feed(b"ternal server erro") == ""
    assert decoder.feed(b"r") == ""
    assert decoder.feed(b"") == ""
    assert decoder.feed(b"!") == "Internal server error!"
    assert decoder.feed(MARKER + b"Inter") == "Internal server error"
    assert decoder.feed(b"est") == "Interest"
    assert decoder.feed("é".encode()[:1]) == ""
    assert decoder.feed("é".encode()[1:] + b" I") == "é "
    assert decoder.finish() == "I"
    assert decoder.failure is None


@pytest.mark.parametrize("at", range(len(MARKER) + 1))
def test_a_body_truncated_in_or_after_the_marker(at: int) -> None:
    decoder = TextDecoder()

    assert decoder.feed(b"so far" + MARKER[:at]) == "so far"
    assert decoder.cut() == (MARKER[:at].decode() if at < len(MARKER) else "")
    assert decoder.failure is None


@pytest.mark.parametrize("size", range(1, 16))
def test_the_size_limit_cuts_at_a_whole_character(size: int) -> None:
    data = MIXED.encode()
    text = data[:size].decode("utf-8", "ignore")
    for parts in splits(data):
        expected = text, None if size >= len(data) else too_large(size)
        assert decode(parts, max_size=size) == expected


@pytest.mark.parametrize("body", [b"abc" + MARKER, b"abc" + MARKER + b"!", b"abcInterest"])
def test_held_bytes_count_once_towards_the_size_limit(body: bytes) -> None:
    for size in range(len(body) + 2):
        for parts in splits(body):
            assert decode(parts, max_size=size) == model(body, max_size=size)


def test_the_marker_counts_towards_the_size_limit() -> None:
    body = b"abc" + MARKER
    assert decode([body], max_size=len(body)) == ("abc", MODEL_FAILED)
    assert decode([body], max_size=10) == ("abcInterna", too_large(10))
    assert decode([body, b"."], max_size=len(body)) == (body.decode(), too_large(len(body)))


PARTS = st.lists(
    st.one_of(
        st.text(max_size=12).map(lambda text: text.encode("utf-8", "replace")),
        st.integers(0, 21).map(lambda at: MARKER[:at]),
        st.integers(0, 21).map(lambda at: MARKER[at:]),
        st.binary(max_size=6),
    ),
    max_size=6,
)


@examples(4)
@given(
    PARTS,
    st.lists(st.integers(0, 150), max_size=8),
    st.booleans(),
    st.booleans(),
    st.none() | st.integers(0, 80),
)
@example([MARKER, MARKER], [], True, True, 21)
@example([b"ab", MARKER], [], True, True, 10)
@example([b"\xe2\x82", MARKER], [], True, True, None)
def test_any_bytes_over_any_split(
    parts: list[bytes],
    cuts: list[int],
    complete: bool,
    failure_marker: bool,
    max_size: int | None,
) -> None:
    body = b"".join(parts)
    options: Any = {
        "complete": complete,
        "failure_marker": failure_marker,
        "max_size": max_size,
    }
    places = sorted({0, *(cut for cut in cuts if cut < len(body)), len(body)})
    split = [body[a:b] for a, b in pairwise(places)]
    for reads in (parts, split, [body], [body[i : i + 1] for i in range(len(body))]):
        assert decode(reads, **options) == model(body, **options)


@examples(3)
@given(PARTS)
def test_text_is_returned_once_it_cannot_become_the_marker(parts: list[bytes]) -> None:
    decoder, body, text = TextDecoder(), b"", ""
    for part in parts:
        body += part
        text += decoder.feed(part)
        tail = next(n for n in range(21, -1, -1) if body.endswith(MARKER[:n]))
        try:
            expected, _ = codecs.utf_8_decode(body[: len(body) - tail], "strict", False)
        except UnicodeDecodeError:
            assert decoder.failure == NOT_UTF_8
            break
        assert (text, decoder.failure) == (expected, None)


def test_other_text_costs_one_search_and_one_decode() -> None:
    decoder, data, calls = TextDecoder(max_size=10**6), b"I am " + b"some text without it", []

    def record(frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call":
            calls.append(function.__name__)

    sys.setprofile(record)
    try:
        text = decoder.feed(data)
    finally:
        sys.setprofile(None)
    assert text == data.decode()
    assert calls[:3] == ["len", "rfind", "utf_8_decode"]
    assert set(calls[3:]) <= {"setprofile"}
