"""Errors of model APIs, and the settings of their clients."""

from __future__ import annotations

import json
import pickle
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.decoding import KEY, WIRES

from gprochat_anyio import (
    AuthenticationError,
    RateLimitError,
    SiteError,
    UnexpectedResponseError,
)
from gprochat_anyio._wire.gemini import GeminiWire
from gprochat_anyio._wire.openai import OpenAIWire

HTML = {"content-type": "text/html; charset=utf-8"}
OPENAI = WIRES["openai"]
every_api = pytest.mark.parametrize("api", WIRES)


def error_of(
    status: int, body: Any, headers: dict[str, str] | None = None, api: str = "openai"
) -> SiteError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return WIRES[api].read_error(status, headers or {}, raw)


class TestHeads:
    @pytest.mark.parametrize(
        ("status", "headers", "says"),
        [
            (200, {"content-type": "text/event-stream"}, None),
            (200, {"content-type": "Text/Event-Stream;charset=UTF-8"}, None),
            (200, {"content-type": "application/json; charset=UTF-8"}, None),
            (200, {}, None),
            (200, {"content-encoding": "identity"}, None),
            (404, HTML, None),
            (200, HTML, "the response is text/html; charset=utf-8 and not an event stream"),
            (200, {"content-type": "application/x-ndjson"}, "application/x-ndjson"),
            (200, {"content-encoding": "gzip"}, "compressed (gzip)"),
            (308, {}, "redirect (status 308)"),
        ],
    )
    @every_api
    def test_heads(self, status: int, headers: dict[str, str], says: str | None, api: str) -> None:
        error = WIRES[api].check_reply_head(status, headers, framed=False)
        if says is None:
            assert error is None
        else:
            assert type(error) is UnexpectedResponseError
            assert says in str(error)
            assert error.status == status
            assert "base_url" in str(error) or WIRES[api].peer in str(error)


class TestBodies:
    @pytest.mark.parametrize(
        ("status", "body", "kind", "says"),
        [
            (400, {"error": {"message": "too long"}}, SiteError, "400 (Bad Request). The model's"),
            (400, {"error": "too long"}, SiteError, "says: too long"),
            (422, {"detail": "no such field"}, SiteError, "says: no such field"),
            (400, {"object": "error", "message": "too long"}, SiteError, "says: too long"),
            (403, {"message": "not this region"}, AuthenticationError, "not this region"),
            (401, {"error": {"message": "x"}}, AuthenticationError, "OPENAI_API_KEY"),
            (401, b"<html>", AuthenticationError, "api_key"),
            (403, b"<html>", UnexpectedResponseError, "403"),
            (429, b"<html>", RateLimitError, "wait a while"),
            (404, {"error": {"message": "model 'x' not found"}}, SiteError, "model 'x' not found"),
            (404, b"404 page not found", UnexpectedResponseError, "often it ends with /v1"),
            (404, {"detail": ["odd"]}, UnexpectedResponseError, "without a content type"),
            (404, [], UnexpectedResponseError, "404"),
            (500, b" ", SiteError, "500 (Internal Server Error). It gives no reason; ask again"),
            (413, b"<html>", SiteError, "is too large for "),
            (413, {"error": {"message": "too long"}}, SiteError, "too long"),
            (500, b"oops", UnexpectedResponseError, "500"),
            (500, {"error": {"code": "boom"}}, SiteError, "Its code is boom."),
            (599, {"error": {"message": "m"}}, SiteError, "status 599. The"),
            (201, {"id": "x"}, UnexpectedResponseError, "201"),
        ],
    )
    def test_kinds(self, status: int, body: Any, kind: type, says: str) -> None:
        error = error_of(status, body)
        assert type(error) is kind
        assert says in str(error)
        assert error.status == status

    def test_attributes(self) -> None:
        body = {"error": {"message": "m", "type": "t", "code": "c"}}
        error = error_of(400, body)
        assert (error.code, error.site_message, error.retry_after) == ("c", "m", None)
        assert error_of(400, {"error": {"type": "t", "code": None}}).code == "t"
        assert error_of(400, {"error": {"type": "t", "code": 7}}).code == "t"
        assert error_of(400, {"error": {"code": 7}}).code == "7"
        google = {"error": {"code": 400, "status": "INVALID_ARGUMENT"}}
        assert error_of(400, google, api="gemini").code == "INVALID_ARGUMENT"

    @pytest.mark.parametrize(
        ("headers", "delay", "seconds"),
        [
            ({"retry-after": "9"}, "39s", 9.0),
            ({}, "39s", 39.0),
            ({}, "0.5s", 0.5),
            ({}, "soon", None),
            ({}, "1" * 400 + "s", None),
            ({}, 5, None),
        ],
    )
    @every_api
    def test_waits(
        self, headers: dict[str, str], delay: Any, seconds: float | None, api: str
    ) -> None:
        body = {"error": {"message": "m", "details": ["odd", {"retryDelay": delay}]}}
        error = error_of(429, body, headers, api)
        assert type(error) is RateLimitError
        assert error.retry_after == seconds
        unavailable = error_of(503, b"<html>", {"retry-after": "9"}, api)
        assert (type(unavailable), unavailable.retry_after) == (UnexpectedResponseError, 9.0)

    @pytest.mark.parametrize("details", [5, [{"reason": []}], [{"reason": "OTHER"}]])
    def test_details_of_other_shapes(self, details: Any) -> None:
        body = {"error": {"message": "m", "details": details}}
        assert type(error_of(400, body, api="gemini")) is SiteError

    def test_foreign_texts_cannot_drive_a_terminal_or_fill_it(self) -> None:
        body = {"error": {"message": "\x1b[2J\n" + "x" * 9999, "code": "\x1b" + "c" * 9999}}
        error = error_of(400, body)
        assert str(error).isprintable()
        assert len(str(error)) < 500
        assert error.code is not None
        assert len(error.code) < 500

    def test_a_server_that_requires_a_key(self) -> None:
        wire = OpenAIWire("m")
        error = wire.read_error(401, {}, b"{}")
        assert str(error) == (
            "the model's server requires an API key; set api_key (OPENAI_API_KEY)."
        )

    @given(st.binary(), st.integers(100, 599))
    def test_any_body_is_an_error(self, body: bytes, status: int) -> None:
        for wire in WIRES.values():
            assert str(wire.read_error(status, HTML, body)).isprintable()


class TestKeys:
    @pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
    @every_api
    def test_are_not_in_errors(self, status: int, api: str) -> None:
        words = f"{'x' * 295} {KEY} {KEY}"
        headers = {"content-type": f"text/{KEY}", "retry-after": KEY, "content-encoding": KEY}
        error = {"message": words, "code": KEY, "type": KEY, "status": KEY}
        wire = WIRES[api]
        found = [
            wire.read_error(status, headers, json.dumps({"error": error}).encode()),
            wire.read_error(status, headers, json.dumps({"error": words}).encode()),
            wire.read_error(status, headers, json.dumps({"detail": words}).encode()),
            wire.read_error(status, headers, KEY.encode()),
            wire.check_reply_head(200, headers, framed=True),
            wire.check_reply_head(200, {"content-type": KEY}, framed=True),
        ]
        for each in found:
            assert each is not None
            shown = "".join([*traceback.format_exception(each), repr(vars(each))])
            assert KEY not in shown + repr(pickle.loads(pickle.dumps(each)))  # noqa: S301
            assert KEY[:8] not in str(each)

    @pytest.mark.parametrize("key", ["two words", "a\r\nb: c", "ключ", "\x7f", "tab\t", 5, b"x"])
    @pytest.mark.parametrize("kind", [OpenAIWire, GeminiWire])
    def test_with_other_characters_are_refused(self, kind: Any, key: Any) -> None:
        with pytest.raises(ValueError, match="api_key") as raised:
            kind("m", api_key=key)
        assert str(key) not in str(raised.value)
        assert raised.traceback[-1].frame.f_locals.get("api_key") is None
        assert raised.value.__context__ is None

    @pytest.mark.parametrize("key", ["", None])
    def test_gemini_requires_one(self, key: Any) -> None:
        with pytest.raises(ValueError, match=r"api_key \(GEMINI_API_KEY\)"):
            GeminiWire("m", api_key=key)


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "name"),
        [
            ({"model": ""}, "model"),
            ({"model": " "}, "model"),
            ({"model": None}, "model"),
            ({"system": 5}, "system"),
            ({"fields": {"x": object()}}, "fields"),
            ({"fields": [1, 2]}, "fields"),
            ({"fields": 5}, "fields"),
        ],
    )
    @pytest.mark.parametrize("kind", [OpenAIWire, GeminiWire])
    def test_invalid_settings(self, kind: Any, settings: dict[str, Any], name: str) -> None:
        with pytest.raises(ValueError, match=rf"^{name} must be"):
            kind(**{"model": "m", "api_key": KEY, **settings})

    def test_fields_in_a_circle(self) -> None:
        fields: dict[str, Any] = {}
        fields["x"] = fields
        with pytest.raises(ValueError, match=r"^fields must be"):
            OpenAIWire("m", fields=fields)
