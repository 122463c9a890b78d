"""JSON bodies: the same bytes from any encoder, and readers that raise one kind of error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprochat_anyio._wire.json_body import decode_json, decode_json_object, encode_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_the_bytes_are_those_of_the_standard_library(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert encode_json(value) == text.encode()


def test_half_a_surrogate_pair_becomes_its_escape() -> None:
    assert encode_json({"a": "\ud800é"}) == '{"a":"\\ud800é"}'.encode()


def test_values_without_json_are_errors() -> None:
    with pytest.raises(TypeError, match="object"):
        encode_json(object())


@pytest.mark.parametrize(
    ("body", "lenient", "strict"),
    [
        (b'{"a": "\\ud800"}', {"a": "\ud800"}, {"a": "\ud800"}),
        (b"\xef\xbb\xbf[1]", [1], [1]),
        ("[1]".encode("utf-16"), [1], None),
        (b"[Infinity]", [float("inf")], None),
        (b"{", None, None),
        (b"\xff", None, None),
        (b"[" * 100_000, None, None),
        (b"9" * 4301, None, None),
    ],
)
def test_decoding(body: bytes, lenient: Any, strict: Any) -> None:
    for expected, is_strict in ((lenient, False), (strict, True)):
        if expected is None:
            with pytest.raises(ValueError):
                decode_json(body, strict=is_strict)
        else:
            assert decode_json(body, strict=is_strict) == expected


@pytest.mark.parametrize("body", [b"", b"[1]", b"null", b"{", b"\xff", b"[" * 100_000])
def test_anything_else_is_an_empty_object(body: bytes) -> None:
    assert decode_json_object(body) == {}
    assert decode_json_object(b'{"a": 1}') == {"a": 1}
