"""Signatures and requests of clients, without I/O."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from gprochat_anyio import Message, UnexpectedResponseError
from gprochat_anyio._wire.gprochat import decode_auth, encode_auth, encode_generate, sign


def test_sign_agrees_with_the_original() -> None:
    expected = "e753bb3fc52993a1ab6b78660ef4745b73a9c887ddc752634026206bbc7e74eb"
    assert sign(1763841600000, "a", "s3cr3t-ключ") == expected


def test_generate_uses_the_current_time() -> None:
    before = time.time_ns() // 1_000_000
    body = json.loads(encode_generate([Message("user", "x")], secret_key="", password=None))
    assert before <= body["time"] <= time.time_ns() // 1_000_000
    assert body["pass"] is None
    assert body["sign"] == sign(body["time"], "x", "")


class Markup(str):
    """A subclass of str, as template engines and NumPy have."""

    __slots__ = ()


def test_a_request_has_the_same_bytes_as_a_browsers() -> None:
    text = 'é😀\u2028\x00\x1f\x7f</script>"\\\n'
    body = encode_generate(
        [Message("user", "a"), Message("assistant", "b"), Message("user", text)],
        secret_key="k",
        password="p",
        timestamp=1763841600000,
    )
    signature = sign(1763841600000, text, "k")
    assert body.decode() == (
        '{"messages":[{"role":"user","parts":[{"text":"a"}]},'
        '{"role":"model","parts":[{"text":"b"}]},'
        '{"role":"user","parts":[{"text":"é😀\u2028\\u0000\\u001f\x7f</script>\\"\\\\\\n"}]}],'
        f'"time":1763841600000,"pass":"p","sign":"{signature}"}}'
    )


def test_a_prompt_may_be_of_a_subclass_of_str() -> None:
    given: dict[str, Any] = {"secret_key": "", "password": None, "timestamp": 1}
    expected = encode_generate([Message("user", "é")], **given)
    assert encode_generate([Message("user", Markup("é"))], **given) == expected


def test_no_repr_shows_a_request() -> None:
    body = encode_generate([Message("user", "canary")], secret_key="", password="canary")
    assert repr(body) == f"<{len(body)} bytes of a request>"
    assert "canary" not in repr(encode_auth("canary"))


@pytest.mark.parametrize(("body", "right"), [(b'{"code": 0}', True), (b'{"code":-1}', False)])
def test_auth(body: bytes, right: bool) -> None:
    assert decode_auth(body) is right
    assert encode_auth(None) == b'{"pass":""}'
    assert encode_auth("é") == '{"pass":"é"}'.encode()


@pytest.mark.parametrize("body", [b"", b"{}", b'{"code": 1}', b'{"code": false}', b"<html>"])
def test_invalid_auth_responses(body: bytes) -> None:
    with pytest.raises(UnexpectedResponseError, match="URL"):
        decode_auth(body)
