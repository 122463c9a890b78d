"""Heads and bodies of responses that are not replies, without I/O."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gprochat_anyio import (
    AuthenticationError,
    RateLimitError,
    SiteError,
    UnexpectedResponseError,
)
from gprochat_anyio._wire.error_responses import check_reply_head, parse_retry_after, read_error

HTML = {"content-type": "text/html"}


@pytest.mark.parametrize(
    ("status", "headers", "framed", "says"),
    [
        (200, {"content-type": "text/plain; charset=utf-8"}, True, None),
        (200, {"content-type": 'TEXT/Plain;charset="UTF-8"'}, True, None),
        (200, {"content-type": "text/plain"}, True, None),
        (200, {}, True, None),
        (200, {"content-encoding": "identity"}, True, None),
        (500, HTML, False, None),
        (200, HTML, True, "is text/html"),
        (200, {"content-type": "application/json"}, True, "application/json"),
        (200, {"content-type": "text/plain; charset=latin-1"}, True, "latin-1"),
        (200, {"content-encoding": "gzip"}, True, "compressed (gzip)"),
        (500, {"content-encoding": "br"}, True, "compressed (br)"),
        (200, {"content-type": "text/plain"}, False, "neither a length nor chunked"),
        (301, {}, True, "redirect (status 301)"),
        (307, {"location": "https://elsewhere"}, True, "redirect"),
    ],
)
def test_heads(status: int, headers: dict[str, str], framed: bool, says: str | None) -> None:
    error = check_reply_head(status, headers, framed=framed)
    if says is None:
        assert error is None
    else:
        assert type(error) is UnexpectedResponseError
        assert says in str(error)
        assert error.status == status


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind", "says"),
    [
        (401, {}, {"message": "Invalid signature."}, AuthenticationError, "GPROCHAT_SECRET_KEY"),
        (401, {}, {"message": "Invalid password."}, AuthenticationError, "GPROCHAT_PASSWORD"),
        (400, {}, {"message": "Invalid message history: x"}, SiteError, "history: x"),
        (500, {}, {"code": "Error", "message": "it broke"}, SiteError, "it broke"),
        (500, {}, {"code": 7, "message": "[429 Too Many"}, RateLimitError, "[429"),
        (500, {}, {"message": "Quota exceeded for"}, RateLimitError, "Quota"),
        (429, {"retry-after": "9"}, {"message": "x"}, RateLimitError, "wait 9 s"),
        (429, HTML, None, RateLimitError, "wait a while"),
        (500, {}, None, SiteError, "Ask again, and check the URL"),
        (413, {}, None, SiteError, "shorten the prompt"),
        (413, {}, {"message": "at most 4 MiB"}, SiteError, "The site says: at most 4 MiB"),
        (503, HTML, None, UnexpectedResponseError, "text/html"),
        (404, {}, None, UnexpectedResponseError, "without a content type"),
        (401, HTML, None, UnexpectedResponseError, "401"),
        (201, {"content-type": "text/plain"}, None, UnexpectedResponseError, "201"),
    ],
)
def test_error_responses(
    status: int,
    headers: dict[str, str],
    body: dict[str, object] | None,
    kind: type[SiteError],
    says: str,
) -> None:
    raw = b"" if body is None else json.dumps({"error": body}).encode()
    error = read_error(status, headers, raw)
    assert type(error) is kind
    assert says in str(error)
    assert error.status == status
    assert error.site_message == (body or {}).get("message")


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[1]", b'{"error": "text"}', b'{"error": {"message": 7}}', b"\xff", b"[" * 99999],
)
def test_an_error_response_of_another_shape(body: bytes) -> None:
    error = read_error(500, {}, body)
    assert type(error) is UnexpectedResponseError
    assert error.site_message is None


def test_foreign_texts_cannot_drive_a_terminal_or_fill_it() -> None:
    body = json.dumps({"error": {"message": "\x1b[2J\n" + "x" * 9999}}).encode()
    shown = str(read_error(500, {}, body))
    assert shown.isprintable()
    assert len(shown) < 500


@given(st.binary(), st.integers(100, 599))
def test_any_error_response_is_an_error(body: bytes, status: int) -> None:
    assert str(read_error(status, {}, body))


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        (None, None, None),
        ("120", None, 120.0),
        (" 0 ", None, 0.0),
        ("-1", None, None),
        ("soon", None, None),
        ("\u0661", None, None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", None, 0.0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", "nonsense", 0.0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", "Fri, 31 Dec 1999 23:59:29 GMT", 30.0),
        pytest.param("9" * 400, None, None, id="beyond all numbers"),
    ],
)
def test_retry_after(value: str | None, date: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, date) == seconds
