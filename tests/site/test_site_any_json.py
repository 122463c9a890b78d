"""Requests with any JSON value in any place: the gate admits or refuses them; no I/O."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.site_wire import TIME, signed

from gprochat_anyio._wire.admission import Gate, Refusal
from gprochat_anyio._wire.gprochat import sign
from gprochat_anyio.site import Turn

ANY_TEXT = st.text(max_size=5) | st.sampled_from(["\ud83d", "a\0", "\ude00\ud83d"])
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "parts", "text", "messages"]) | ANY_TEXT, inner, max_size=3
        )
    ),
    max_leaves=8,
)
PLACES: list[tuple[str | int, ...]] = [
    (),
    ("messages",),
    *(("messages", i, *rest) for i in (0, 2) for rest in ((), ("role",), ("parts",))),
    *(("messages", i, "parts", 0, *rest) for i in (0, 2) for rest in ((), ("text",))),
    ("time",),
    ("pass",),
    ("sign",),
]
GATE = Gate.of("key", ["password"])
REQUEST: dict[str, Any] = {
    "messages": [
        {"role": "user", "parts": [{"text": "a"}]},
        {"role": "model", "parts": [{"text": "b"}]},
        {"role": "user", "parts": [{"text": "c"}]},
    ],
    "time": TIME,
    "pass": "password",
    "sign": sign(TIME, "c", "key"),
}


def judged(body: bytes) -> tuple[Turn, ...] | int:
    """Return the history, or the status of a refusal, whose text is one of the wire's."""
    try:
        turns = GATE.admit(body)
    except Refusal as refusal:
        answer = refusal.response
    else:
        for turn in turns:
            assert turn.role in ("user", "model")
            turn.text.encode()
        return turns
    if answer.body:
        assert list(json.loads(answer.body)) == ["error"]
        assert b"Traceback" not in answer.body
    else:
        assert answer.status == 500
    return answer.status


def test_the_unchanged_request_is_admitted() -> None:
    assert judged(json.dumps(REQUEST).encode()) == (
        Turn("user", "a"),
        Turn("model", "b"),
        Turn("user", "c"),
    )


@given(st.sampled_from(PLACES), ANY_JSON)
def test_any_json_in_any_place(place: tuple[Any, ...], value: object) -> None:
    request: Any = copy.deepcopy({"": REQUEST})
    inner = request
    *way, last = ("", *place)
    for step in way:
        inner = inner[step]
    inner[last] = value
    body = json.dumps(request[""]).encode()
    outcome = judged(body)
    if isinstance(outcome, int):
        assert outcome in (400, 401, 500)
    else:
        assert place[:2] == ("messages", 0) or json.loads(body) == REQUEST


@given(st.binary(max_size=50) | ANY_JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body(body: bytes) -> None:
    assert judged(body) in (400, 500)
    try:
        answer = GATE.check_password(body)
    except Refusal as refusal:
        answer = refusal.response
    assert (answer.status, answer.body) in ((500, b""), (200, b'{"code":-1}'))


@pytest.mark.parametrize(
    ("one", "other", "outcome"),
    [
        (b'"time"', b'"time": 1, "time"', 200),  # as with JSON.parse, the last one counts
        (b'"sign"', b'"sign": "0", "sign"', 200),
        (b"1763841600000", b'1763841600000, "time": 1', 401),
        (b"1763841600000", b"1763841600001", 401),
        (b"1763841600000", b"-1763841600000", 401),
        (b"1763841600000", b"1763841600000.0", 401),
        (b"1763841600000", b'"1763841600000"', 401),
        (b"1763841600000", b"1e999", 401),
        (b"1763841600000", b"NaN", 500),
        (b"1763841600000", b"-Infinity", 500),
        (b"1763841600000", b"9" * 4300, 401),
        (b"1763841600000", b"9" * 4301, 500),
        (b'"hello"', b'"hellp"', 401),
        (b'"hello"', b'"hello\\u0000"', 401),
        (b'"hello"', b'"hello"}, {"text": " "', 401),
        (b'"hello"', b'"hello\0"', 500),
        (b'"sign": "', b'"sign": "0', 401),
    ],
)
def test_modified_bytes(one: bytes, other: bytes, outcome: int) -> None:
    body = signed("hello", secret_key="key", pass_="password")
    assert one in body
    found = judged(body.replace(one, other))
    assert found == (outcome if outcome != 200 else (Turn("user", "hello"),))


def test_nul_reaches_the_model() -> None:
    body = signed("a\0b", secret_key="key", pass_="password")
    assert judged(body) == (Turn("user", "a\0b"),)
