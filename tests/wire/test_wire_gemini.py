"""Gemini's API: requests and replies."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.decoding import KEY, Decoded, decode, events, single_bytes, told

from gprochat_anyio import Message, RateLimitError, SiteError
from gprochat_anyio._wire.gemini import GeminiWire
from gprochat_anyio._wire.usage import Usage

HISTORY = [Message("user", "One"), Message("assistant", "twö"), Message("user", "three")]


def reply(*values: Any) -> Decoded:
    return decode("gemini", [events(*values)])


class TestRequests:
    def test_a_history(self) -> None:
        wire = GeminiWire(
            "models/gemini-2.5-flash",
            api_key=KEY,
            system="Be brief",
            fields={"generationConfig": {"temperature": 0}, "safetySettings": None},
        )
        assert wire.peer == "the Gemini API"
        assert wire.path == "/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
        assert wire.headers["x-goog-api-key"] == KEY
        assert wire.encode([Message("system", "In verse"), *HISTORY]).decode() == (
            '{"generationConfig":{"temperature":0},'
            '"systemInstruction":{"parts":[{"text":"Be brief\\n\\nIn verse"}]},'
            '"contents":[{"role":"user","parts":[{"text":"One"}]},'
            '{"role":"model","parts":[{"text":"twö"}]},{"role":"user","parts":[{"text":"three"}]}]}'
        )

    def test_without_a_system_text(self) -> None:
        wire = GeminiWire("gemini-flash-latest", api_key=KEY)
        assert set(json.loads(wire.encode(HISTORY))) == {"contents"}

    def test_a_model_cannot_change_the_path(self) -> None:
        wire = GeminiWire("a/../b?c#d", api_key=KEY)
        assert wire.path == "/models/a%2F..%2Fb%3Fc%23d:streamGenerateContent?alt=sse"

    def test_the_key_is_not_shown(self) -> None:
        wire = GeminiWire("m", api_key=KEY)
        assert KEY not in repr(wire) + repr(wire.headers) + repr(vars(wire)) + wire.path
        assert repr(wire) == "<GeminiWire m>"
        body = wire.encode(HISTORY)
        assert repr(body) == f"<{len(body)} bytes of a request>"


class TestEvents:
    @pytest.mark.parametrize(
        "odd",
        [
            {},
            {"candidates": []},
            {"candidates": None},
            {"candidates": [None]},
            {"candidates": [{}]},
            {"candidates": [{"content": {"role": "model"}}]},
            {"candidates": [{"content": None, "finishReason": "FINISH_REASON_UNSPECIFIED"}]},
            {"candidates": [{"content": {"parts": None}}]},
            {"candidates": [{"content": {"parts": {"text": "x"}}}]},
            {"candidates": [{"content": {"parts": ["x", {"text": 5}]}}]},
            {"candidates": [{"content": {"parts": [{"text": "x", "thought": 1}]}}]},
            {"candidates": {"content": "x"}},
            told("x", index=1),
            told("x", "STOP", index=1),
            {"usageMetadata": {"totalTokenCount": 5}},
            {"usageMetadata": 5},
            {"promptFeedback": {"safetyRatings": []}},
            {"promptFeedback": {"blockReason": 5}},
            {"promptFeedback": 5},
        ],
        ids=repr,
    )
    def test_without_text(self, odd: Any) -> None:
        expected = Decoded("ab", "stop", None, is_whole=True)
        assert reply(odd, told("a"), odd, told("b", "STOP"), odd) == expected

    @pytest.mark.parametrize("index", [0, None])
    def test_parts_that_are_text(self, index: int | None) -> None:
        parts: list[Any] = [
            {"text": "Hm", "thought": True},
            {"text": "A", "thought": False},
            {"inlineData": {}},
            {"text": "B", "thoughtSignature": "x"},
            {"functionCall": {"name": "f"}},
        ]
        value = told(None, "STOP", content={"parts": parts}, index=index)
        assert reply(value) == Decoded("AB", "stop", None, is_whole=True)

    def test_text_after_a_finish_reason_counts(self) -> None:
        """Early models repeat the reason in each event."""
        expected = Decoded("ab", "stop", None, is_whole=True)
        assert reply(told("a", "STOP"), told("b", "STOP")) == expected

    def test_usage_is_the_latest(self) -> None:
        first = {**told("a"), "usageMetadata": {"promptTokenCount": 4}}
        counts = {"promptTokenCount": 4, "candidatesTokenCount": 2, "thoughtsTokenCount": 5}
        last = {**told("b", "STOP"), "usageMetadata": counts}
        assert reply(first).usage == Usage(4, 0)
        assert reply(first, last).usage == Usage(4, 7)
        odd = {"usageMetadata": {**counts, "candidatesTokenCount": "2"}}
        assert reply(first, told(None, "STOP"), odd).usage == Usage(4, 5)

    def test_no_finish_reason(self) -> None:
        expected = Decoded("a", failure="it ended without a finish reason")
        assert reply(told("a")) == expected


class TestFailures:
    @pytest.mark.parametrize("reason", ["SAFETY", "RECITATION", "SPII", "PROHIBITED_CONTENT"])
    @pytest.mark.parametrize("before", ["", "so far"])
    def test_a_reply_that_is_held_back(self, reason: str, before: str) -> None:
        values = [told(before), told(None, reason, finishMessage="Too\nrisky"), told("x", "STOP")]
        decoded = reply(*values)
        assert decoded.text == before
        assert decoded.error == (
            SiteError,
            f"the Gemini API withheld the reply ({reason}). The Gemini API says: Too risky",
            {
                "status": 200,
                "code": "content_filter",
                "site_message": "Too\nrisky",
                "retry_after": None,
                "partial_text": "",  # the client adds it
            },
        )
        assert decode("gemini", single_bytes(events(*values))) == decoded

    @pytest.mark.parametrize(
        ("more", "says"),
        [({}, "BLOCKLIST"), ({"blockReasonMessage": "Not this"}, "Not this")],
    )
    def test_a_blocked_prompt(self, more: dict[str, str], says: str) -> None:
        value = {"promptFeedback": {"blockReason": "BLOCKLIST", **more}, **told("x")}
        kind, message, facts = reply(value).error
        assert kind is SiteError
        assert message == f"the Gemini API blocked the prompt. The Gemini API says: {says}"
        assert facts["code"] == "content_filter"
        assert reply(value).text == ""

    def test_other_finish_reasons_are_failures(self) -> None:
        decoded = reply(told("a"), told(None, "MALFORMED_FUNCTION_CALL"))
        kind, message, facts = decoded.error
        assert (decoded.text, kind) == ("a", SiteError)
        assert message == (
            "the Gemini API abandoned the reply. Its code is MALFORMED_FUNCTION_CALL."
        )
        assert facts["code"] == "MALFORMED_FUNCTION_CALL"

    def test_the_limit_of_tokens(self) -> None:
        assert reply(told("a", "MAX_TOKENS")).finish_reason == "length"
        assert "token limit" in reply(told(None, "MAX_TOKENS")).error[1]

    def test_errors_within_the_stream(self) -> None:
        overloaded = {"error": {"code": 503, "message": "Overloaded.", "status": "UNAVAILABLE"}}
        decoded = reply(told("so far"), overloaded, told("x", "STOP"))
        kind, message, facts = decoded.error
        assert (decoded.text, kind) == ("so far", SiteError)
        assert message == ("the Gemini API reported an error. The Gemini API says: Overloaded.")
        assert (facts["status"], facts["code"]) == (503, "UNAVAILABLE")
        delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}
        exhausted = {"status": "RESOURCE_EXHAUSTED", "details": [delay]}
        kind, _, facts = reply({**told("x"), "error": exhausted}).error
        assert (kind, facts["retry_after"]) == (RateLimitError, 7.0)
