"""OpenAI's API: requests, and replies in the dialects of its servers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.decoding import KEY, WIRES, Decoded, decode, event, events, said, single_bytes

from gprochat_anyio import AuthenticationError, Message, RateLimitError, SiteError
from gprochat_anyio._wire.openai import OpenAIWire
from gprochat_anyio._wire.server_sent_events import MAX_EVENT_SIZE
from gprochat_anyio._wire.usage import Usage

NO_REASON = "it ended without a finish reason"
HISTORY = [Message("user", "One"), Message("assistant", "twö"), Message("user", "three")]


def reply(*values: Any, max_size: int | None = None) -> Decoded:
    return decode("openai", [events(*values)], max_size=max_size)


class TestRequests:
    def test_a_history(self) -> None:
        wire = OpenAIWire("llama3.2")
        assert (wire.peer, wire.path) == ("the model's server", "/chat/completions")
        assert dict(wire.headers) == {
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
        }
        assert wire.encode(HISTORY).decode() == (
            '{"stream_options":{"include_usage":true},"model":"llama3.2","stream":true,'
            '"messages":[{"role":"user","content":"One"},{"role":"assistant","content":"twö"},'
            '{"role":"user","content":"three"}]}'
        )

    @pytest.mark.parametrize(
        ("own", "prompted", "system"),
        [
            ("Be brief", None, "Be brief"),
            (None, "In verse", "In verse"),
            ("Be brief", "In verse", "Be brief\n\nIn verse"),
            ("", None, None),
        ],
    )
    def test_system_texts(self, own: str | None, prompted: str | None, system: str | None) -> None:
        first = [Message("system", prompted)] if prompted else []
        body = json.loads(OpenAIWire("m", system=own).encode([*first, Message("user", "x")]))
        expected = [{"role": "system", "content": system}] if system else []
        assert body["messages"] == [*expected, {"role": "user", "content": "x"}]

    def test_fields(self) -> None:
        fields = {"temperature": 0, "stream": False, "model": "x", "stop": None, "messages": []}
        body = json.loads(OpenAIWire("m", fields=fields).encode([Message("user", "x")]))
        assert body == {
            "stream_options": {"include_usage": True},
            "temperature": 0,
            "model": "m",
            "stream": True,
            "messages": [{"role": "user", "content": "x"}],
        }

    @pytest.mark.parametrize("options", [None, {"include_usage": False}])
    def test_stream_options_may_be_left_out_or_replaced(self, options: Any) -> None:
        wire = OpenAIWire("m", fields={"stream_options": options})
        assert json.loads(wire.encode(HISTORY)).get("stream_options") == options

    @pytest.mark.parametrize("key", [KEY, None, ""])
    def test_the_key_is_only_in_a_header(self, key: str | None) -> None:
        wire = OpenAIWire("m", api_key=key)
        assert wire.headers.get("Authorization") == (f"Bearer {KEY}" if key else None)
        assert KEY not in repr(wire) + repr(wire.headers) + repr(vars(wire))
        assert repr(wire) == "<OpenAIWire m>"
        body = wire.encode(HISTORY)
        assert KEY.encode() not in body
        assert repr(body) == f"<{len(body)} bytes of a request>"


class TestEvents:
    @pytest.mark.parametrize(
        "odd",
        [
            {},
            {"choices": []},
            {"choices": None},
            {"choices": [None]},
            {"choices": [{}]},
            {"choices": [{"delta": None}]},
            {"choices": {"0": "x"}},
            said("", ""),
            said(None, role="assistant"),
            {"choices": [{"delta": {"reasoning_content": "Hm", "content": None}}]},
            {"choices": [{"delta": {"reasoning": "Hm", "thinking": ["Hm"]}}]},
            {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": "f"}}]}}]},
            {"choices": [{"delta": {"content": 5}}]},
            {"choices": [{"delta": {"content": [{"type": "thinking", "thinking": []}]}}]},
            {"choices": [{"delta": {"content": ["x", {"type": "text"}]}}]},
            {"choices": [{"delta": "x", "finish_reason": 5}]},
            said("x", index=1),
            said("x", "stop", index=1),
            {"usage": None},
            {"usage": {}},
            {"usage": {"prompt_tokens": "4"}},
            {"usage": {"prompt_tokens": 4, "completion_tokens": None}},
            {"usage": [4]},
            {"error": None, "choices": []},
            {"error": ""},
            [],
            None,
            5,
            b"",
        ],
        ids=repr,
    )
    def test_without_text(self, odd: Any) -> None:
        expected = Decoded("ab", "stop", None, is_whole=True)
        assert reply(odd, said("a"), odd, said("b"), said(None, "stop"), odd) == expected

    @pytest.mark.parametrize(
        "delta",
        [
            {"content": "é"},
            {"content": [{"type": "text", "text": "é"}]},
            {"content": [{"type": "thinking", "thinking": "x"}, {"text": "é"}]},
            {"content": None, "refusal": "é"},
            {"content": "é", "role": 5, "tool_calls": {}},
        ],
    )
    @pytest.mark.parametrize("more", [{}, {"index": None}, {"logprobs": {"x": [1e9]}}])
    def test_with_text(self, delta: Any, more: Any) -> None:
        chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": "stop", **more}]}
        assert reply(chunk).text == "é"

    def test_numbers_that_are_not_json(self) -> None:
        data = json.dumps(said("a", "stop", logprobs=float("-inf"))).encode()
        assert reply(data).text == "a"

    def test_of_several_choices_the_first_is_read(self) -> None:
        both = {"choices": [*said("x", index=1)["choices"], *said("a")["choices"]]}
        assert reply(both, said("b", "stop"), said("x", "length", index=1)).text == "ab"
        assert reply(both, said(None, "stop", index=1)).failure == NO_REASON

    @pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "function_call", "eos"])
    def test_finish_reasons(self, reason: str) -> None:
        expected = Decoded("Hi", reason, None, is_whole=True)
        assert reply(said("Hi"), said(None, reason)) == expected
        assert reply(said("Hi", reason)) == expected

    def test_no_finish_reason(self) -> None:
        for values in ([], [said("Hi")], [said("Hi"), b"[DONE]"], [said("Hi"), b"[DONE] "]):
            decoded = reply(*values)
            assert (decoded.is_whole, bool(decoded.failure)) == (False, True)
        assert reply(said("Hi"), b"[DONE]", said("!", "stop")).text == "Hi"
        assert reply(said("Hi"), b"[DONE]", said("!", "stop")).failure == NO_REASON

    def test_usage(self) -> None:
        counts = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        last = {"choices": [], "usage": counts}
        for values in (
            [said("Hi"), said(None, "stop"), last, b"[DONE]"],
            [said("Hi"), {**said(None, "stop"), "usage": counts}],
            [said("Hi"), {**said(None, "stop"), "usage": {**counts, "total_tokens": "7"}}],
            [said("Hi"), {"choices": None, "usage": counts}, said(None, "stop")],
            [said("Hi"), {"choices": {}, "usage": counts}, said(None, "stop")],
        ):
            assert reply(*values) == Decoded("Hi", "stop", Usage(3, 4), is_whole=True)
        first = {"choices": [], "usage": {"prompt_tokens": 3}}
        assert reply(first, said("Hi", "stop")).usage == Usage(3, 0)

    def test_damage_after_the_finish_reason_is_ignored(self) -> None:
        whole = Decoded("Hi", "stop", None, is_whole=True)
        assert reply(said("Hi", "stop"), b"[DONE]", b"{", said("x")) == whole
        assert reply(said("Hi", "stop"), b"{", said("x")) == whole
        huge = b"x" * (MAX_EVENT_SIZE + 1)
        assert decode("openai", [event(said("Hi", "stop")), huge, event(said("x"))]) == whole

    def test_an_error_after_the_finish_reason_counts(self) -> None:
        assert reply(said("Hi", "stop"), {"error": {"message": "m"}}).error[0] is SiteError
        assert reply(said("Hi", "stop"), said(None, "content_filter")).error[0] is SiteError


class TestFailures:
    @pytest.mark.parametrize("data", [b"{", b"nonsense", b'{"choices": "\xff"}', b"[" * 9999])
    def test_an_event_that_is_not_json(self, data: bytes) -> None:
        expected = Decoded("a", failure="it has an event that is not JSON in UTF-8")
        assert reply(said("a"), data, said("b", "stop")) == expected

    def test_half_a_surrogate_pair(self) -> None:
        expected = Decoded("aé", failure="it holds a lone surrogate, which is not valid text")
        value = json.dumps(said("é\ud83d?", "stop")).encode()
        assert reply(said("a"), value) == Decoded(expected.text, "stop", failure=expected.failure)

    def test_an_event_that_is_too_large(self) -> None:
        body = event(said("a")) + event(said("x" * MAX_EVENT_SIZE)) + event(said("b", "stop"))
        expected = Decoded("a", failure=f"it has an event of more than {MAX_EVENT_SIZE} bytes")
        assert decode("openai", [body]) == expected
        assert decode("openai", [body[:MAX_EVENT_SIZE], body[MAX_EVENT_SIZE:]]) == expected

    @pytest.mark.parametrize("size", range(1, 8))
    def test_the_limit_of_the_text(self, size: int) -> None:
        text = "aé€b"  # 1, 2, 3 and 1 bytes
        expected = text.encode()[:size].decode(errors="ignore")
        failure = None if size >= 7 else f"it is larger than max_reply_size, {size} bytes"
        for values in ([said(text, "stop")], [*map(said, text), said(None, "stop")]):
            decoded = reply(*values, max_size=size)
            assert (decoded.text, decoded.failure) == (expected, failure)
            assert decode("openai", single_bytes(events(*values)), max_size=size) == decoded

    @pytest.mark.parametrize(
        ("reason", "says", "code"),
        [
            ("content_filter", "the model's server withheld the reply", "content_filter"),
            ("error", "the model's server abandoned the reply", "error"),
        ],
    )
    def test_reasons_that_are_failures(self, reason: str, says: str, code: str) -> None:
        decoded = reply(said("Hi"), said("!", reason), said("x", "stop"))
        kind, message, facts = decoded.error
        assert decoded.text == "Hi!"
        assert kind is SiteError
        assert message.startswith(says)
        assert (facts["code"], facts["status"]) == (code, 200)

    def test_the_limit_of_tokens_before_the_first_text(self) -> None:
        for values in ([said("", "length")], [said(""), said(None, "length")]):
            kind, message, facts = reply(*values).error
            assert (kind, facts["code"]) == (SiteError, "length")
            assert "token limit before the first text" in message

    @pytest.mark.parametrize(
        ("data", "status", "says"),
        [
            (b'data: {"error": {"message": "m", "code": 400}}', 400, "says: m"),
            (b'data: {"error": "m"}', 500, "says: m"),
            (b'data: {"error": 5}', 500, "reported an error."),
            (b'data: {"error": {"message": "m"}, "choices": []}', 500, "says: m"),
            (b'data: {"error": {"message": "m"}, "choices": 5}', 500, "says: m"),
            (b'data: [{"error": {"message": "m", "type": "overloaded_error"}}]', 503, "says: m"),
            (b'data: {"error": {"code": "503"}}', 503, "Its code is 503"),
            (b'data: {"error": {"code": 599}}', 599, "Its code is 599"),
            (b'data: {"error": {"code": 7}}', 500, "Its code is 7"),
            (b'data: {"error": {"code": true, "message": " "}}', 500, "reported an error."),
            (b'data: {"error": {"code": %b}}' % (b"9" * 99), 500, "reported an error."),
            (b'data: {"object":"error","message":"m","code":400}', 400, "says: m"),
            (b'data: {"error": {"type": "invalid_request_error"}}', 400, "invalid_request_error"),
            (b'event: error\ndata: {"error": {"message": "m"}}', 500, "says: m"),
            (b'event: error\ndata: {"message": "m", "code": 404}', 404, "says: m"),
            (b"event: error\ndata: m\xff", 500, "says: m\ufffd"),
            (b'event: error\ndata: "m"', 500, "says: m"),
            (b"event: error\ndata", 500, "reported an error."),
            (b'error: {"code":400,"message":"m","type":"invalid_request_error"}', 400, "says: m"),
        ],
    )
    def test_errors_within_the_stream(self, data: bytes, status: int, says: str) -> None:
        body = event(said("Hi")) + data + b"\n\n" + event(said("x", "stop"))
        for parts in ([body], single_bytes(body)):
            decoded = decode("openai", parts)
            kind, message, facts = decoded.error
            assert decoded.text == "Hi"
            assert (kind, facts["status"]) == (SiteError, status)
            assert message.startswith("the model's server reported an error.")
            assert says in message

    @pytest.mark.parametrize(
        ("error", "kind", "status"),
        [
            ({"type": "rate_limit_error"}, RateLimitError, 429),
            ({"code": "rate_limit_exceeded"}, RateLimitError, 429),
            ({"code": "insufficient_quota"}, RateLimitError, 429),
            ({"code": 429}, RateLimitError, 429),
            ({"code": "invalid_api_key", "message": KEY}, AuthenticationError, 401),
            ({"type": "permission_error", "message": KEY}, AuthenticationError, 403),
        ],
    )
    def test_kinds_of_errors_within_the_stream(self, error: Any, kind: type, status: int) -> None:
        decoded = reply({"error": error})
        assert decoded.error[0] is kind
        assert decoded.error[2]["status"] == status
        assert KEY not in repr(decoded)


def test_a_custom_finish_reason_is_short_and_holds_no_key() -> None:
    decoder = WIRES["openai"].decoder(None)
    text = decoder.feed(event(said("a", reason=f"{KEY} {'x' * 200}")))
    assert text == "a"
    assert decoder.finish_reason is not None
    assert decoder.finish_reason.startswith("*** x")
    assert len(decoder.finish_reason) <= 100


def test_a_negative_usage_is_ignored() -> None:
    decoder = WIRES["openai"].decoder(None)
    usage = {"prompt_tokens": -5, "completion_tokens": 1}
    decoder.feed(event({"choices": [], "usage": usage}))
    assert decoder.usage is None
