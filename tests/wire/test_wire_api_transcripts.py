"""Recorded replies of model APIs: split, truncated and ended at every byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.api_transcripts import ERRORS, REPLIES, ApiTranscript
from support.decoding import KEY, WIRES, decode, event, halves, single_bytes

from gprochat_anyio import UnexpectedResponseError
from gprochat_anyio._wire.usage import Usage

every_reply = pytest.mark.parametrize("transcript", REPLIES, ids=str)


@every_reply
def test_a_reply_over_any_split(transcript: ApiTranscript) -> None:
    whole = decode(transcript.api, [transcript.body])
    assert whole.text == transcript.text
    assert whole.finish_reason == transcript.finish_reason
    assert whole.usage == (transcript.usage and Usage(*transcript.usage))
    assert whole.is_whole == (transcript.error is None)
    if transcript.error is None:
        assert whole.failure is None
    else:
        kind, _, facts = whole.error
        assert (kind, facts["code"]) == (transcript.error, "content_filter")
    for parts in [*halves(transcript.body), single_bytes(transcript.body)]:
        assert decode(transcript.api, parts) == whole


@every_reply
def test_a_reply_that_is_cut(transcript: ApiTranscript) -> None:
    for place in range(len(transcript.body)):
        part = transcript.body[:place]
        cut = decode(transcript.api, [part], "cut")
        ended = decode(transcript.api, [part])
        assert transcript.text.startswith(ended.text)
        assert ended.text.startswith(cut.text)
        assert ended.is_whole == (ended.failure is None)
        assert cut.is_whole <= ended.is_whole
        if ended.is_whole:
            assert ended.text == transcript.text
            assert ended.finish_reason == transcript.finish_reason
        elif isinstance(ended.failure, str):
            assert ended.failure == "it ended without a finish reason"


@every_reply
def test_the_head_of_a_reply_is_accepted(transcript: ApiTranscript) -> None:
    for framed in (True, False):
        assert WIRES[transcript.api].check_reply_head(200, transcript.fields, framed=framed) is None


@pytest.mark.parametrize("transcript", ERRORS, ids=str)
def test_an_error(transcript: ApiTranscript) -> None:
    wire = WIRES[transcript.api]
    assert wire.check_reply_head(transcript.status, transcript.fields, framed=True) is None
    error = wire.read_error(transcript.status, transcript.fields, transcript.body)
    assert type(error) is transcript.error
    assert error.status == transcript.status


@pytest.mark.parametrize("transcript", ERRORS, ids=str)
def test_an_error_with_the_status_200(transcript: ApiTranscript) -> None:
    decoded = decode(transcript.api, single_bytes(transcript.body))
    kind, _, facts = decoded.error
    assert kind is transcript.error
    assert facts["status"] in (transcript.status, 500)


@pytest.mark.parametrize("api", WIRES)
def test_a_body_of_json_is_not_a_reply(api: str) -> None:
    for body in (b'{"choices": []}', b"[]", b" null\n"):
        kind, message, facts = decode(api, [body]).error
        assert kind is UnexpectedResponseError
        assert "base_url" in message
        assert facts["status"] == 200
    broken = decode(api, [b'{"choices": ['])
    assert broken.failure == "it ended without a finish reason"
    assert decode(api, [b'{"a": "' + b"x" * 70_000 + b'"}']).failure == broken.failure


NAMES = st.sampled_from(["error", "message", "code", "type", "status", "details", "text", "detail"])
SCALARS = st.sampled_from([None, True, 0, -1, 1.5, "", "text", "é", KEY, 10**30, "\ud800", "401"])
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


def odd(*usual: object, **fields: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Return a strategy for a field's usual values, objects with fields, or any JSON."""
    mapping = st.fixed_dictionaries({}, optional=fields)
    return st.sampled_from(usual) | JSON if usual else mapping | JSON


def several(item: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.lists(item, max_size=2) | JSON


TEXT = odd("a", "bc", "é")
COUNT = odd(1, 2)
EVENTS = {
    "openai": odd(
        choices=several(
            odd(
                index=odd(0, 0, 1),
                delta=odd(content=TEXT | several(odd(type=odd("text"), text=TEXT)), refusal=TEXT),
                finish_reason=odd("stop", "length", "content_filter", "error", None),
            )
        ),
        usage=odd(prompt_tokens=COUNT, completion_tokens=COUNT),
        error=JSON,
        object=odd("chat.completion.chunk", "error"),
    ),
    "gemini": odd(
        candidates=several(
            odd(
                index=odd(0, 0, 1),
                content=odd(parts=several(odd(text=TEXT, thought=odd(True, False)))),
                finishReason=odd("STOP", "MAX_TOKENS", "SAFETY", "OTHER", None),
                finishMessage=TEXT,
            )
        ),
        usageMetadata=odd(promptTokenCount=COUNT, candidatesTokenCount=COUNT),
        promptFeedback=odd(blockReason=odd("SAFETY", None), blockReasonMessage=TEXT),
        error=JSON,
    ),
}


@pytest.mark.parametrize("api", WIRES)
@given(data=st.data(), limit=st.sampled_from([None, 3]))
def test_any_event_is_read_or_reported(api: str, data: st.DataObject, limit: int | None) -> None:
    values = data.draw(st.lists(EVENTS[api].map(encoded) | st.binary(max_size=9), max_size=4))
    stream = b"".join(map(event, values))
    whole = decode(api, [stream], max_size=limit)
    assert whole == decode(api, single_bytes(stream), max_size=limit)
    assert whole.is_whole == (whole.failure is None)
    assert len(whole.text.encode()) <= (limit or 1000)
    assert KEY not in repr(whole.failure)
    for value in values:
        error = WIRES[api].read_error(400, {}, value)
        assert str(error).isprintable()
        assert KEY not in repr(vars(error)) + str(error)


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()
