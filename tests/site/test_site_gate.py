"""The gate: the requests that a site admits, and their histories; no I/O."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.site_wire import TIME, signed

from gprochat_anyio._wire.admission import Gate, Refusal, WireResponse
from gprochat_anyio._wire.gprochat import sign
from gprochat_anyio.site import Turn, create_app

HISTORY = (
    '{"error":{"message":"Invalid message history: The last message must be from user role."}}'
)
PASSWORD = '{"error":{"message":"Invalid password."}}'
SIGNATURE = '{"error":{"message":"Invalid signature."}}'
ROLE = (
    '{"error":{"code":"Error",'
    '"message":"The message history has a role other than user and model."}}'
)
UNREADABLE = (500, "")

USER = {"role": "user", "parts": [{"text": "a"}]}
OPEN = Gate.of("", ())


def refused(gate: Gate, body: bytes) -> tuple[int, str]:
    with pytest.raises(Refusal) as refusal:
        gate.admit(body)
    return refusal.value.response.status, refusal.value.response.body.decode()


def asking(*messages: object, text: str = "a") -> bytes:
    return signed(text, messages=messages)


def test_an_admitted_request() -> None:
    body = signed(
        "bc",
        secret_key="ключ",
        messages=[
            {"role": "user", "parts": [{"text": ""}]},
            {"role": "model", "parts": []},
            {"role": "user", "parts": [{"text": "b"}, {"text": "c", "more": 1}], "more": 2},
        ],
    )
    gate = Gate.of("ключ", ())
    assert gate.admit(body) == (Turn("user", ""), Turn("model", ""), Turn("user", "bc"))
    assert gate.admit(b"\xef\xbb\xbf" + body) == gate.admit(body)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'"\xff"', b"nul", b"[" * 200_000, b"[NaN]"])
def test_a_body_that_is_not_json(body: bytes) -> None:
    assert refused(OPEN, body) == UNREADABLE
    with pytest.raises(Refusal) as refusal:
        OPEN.check_password(body)
    assert refusal.value.response == WireResponse(500)


def test_an_infinite_number() -> None:
    assert refused(OPEN, b'{"time": %s}' % (b"9" * 100_000)) == UNREADABLE


@pytest.mark.parametrize("request_", [None, 1, True, "x", [], {}, [{}]])
def test_a_body_that_is_not_an_object(request_: object) -> None:
    assert refused(OPEN, json.dumps(request_).encode()) == (400, HISTORY)


@pytest.mark.parametrize(
    "messages", [None, 1, True, "user", {}, {"0": USER}, [], [None], [1], [[]]]
)
def test_missing_messages(messages: object) -> None:
    assert refused(OPEN, signed(messages=messages)) == (400, HISTORY)


@pytest.mark.parametrize("role", [None, 1, [], {}, "", "model", "USER", "system"])
def test_the_last_message_is_not_the_user_s(role: object) -> None:
    assert refused(OPEN, asking(USER, USER | {"role": role})) == (400, HISTORY)


@pytest.mark.parametrize(
    "parts", [None, 1, "a", {}, {"text": "a"}, ["a"], [None], [{}], [{"text": None}], [{"text": 1}]]
)
def test_unreadable_parts(parts: object) -> None:
    assert refused(OPEN, asking({"role": "user", "parts": parts})) == UNREADABLE
    assert refused(OPEN, asking({"role": "user", "parts": parts}, USER)) == UNREADABLE


@pytest.mark.parametrize("message", [None, 1, "x", [], {}, {"role": "user"}])
def test_an_unreadable_message(message: object) -> None:
    assert refused(OPEN, asking(message, USER)) == UNREADABLE


@pytest.mark.parametrize("role", [None, 1, [], {}, "", "system", "assistant"])
def test_an_unknown_role_is_refused_as_a_model_would(role: object) -> None:
    assert refused(OPEN, asking(USER | {"role": role}, USER)) == (500, ROLE)


@pytest.mark.parametrize(
    "given", [None, 1, [], {}, "", "0" * 64, sign(TIME, "a", "").upper(), "\ud800"]
)
def test_a_wrong_signature(given: object) -> None:
    assert refused(OPEN, signed("a", sign=given)) == (401, SIGNATURE)


@pytest.mark.parametrize("time", [None, "1", [], {}, True, 1.0, str(TIME), float(TIME), TIME + 1])
def test_a_time_that_was_not_signed(time: object) -> None:
    assert refused(OPEN, signed("a", time=time)) == (401, SIGNATURE)


def test_another_secret_key() -> None:
    assert refused(Gate.of("key", ()), signed("a")) == (401, SIGNATURE)


@pytest.mark.parametrize("given", [None, 1, [], {}, "", "c", "A", "a,b", "\ud800", ["a"]])
def test_a_wrong_password(given: object) -> None:
    gate = Gate.of("", iter(["a", "b"]))
    assert refused(gate, signed("a", pass_=given)) == (401, PASSWORD)
    answer = gate.check_password(json.dumps({"pass": given}).encode())
    assert (answer.status, answer.body) == (200, b'{"code":-1}')


@pytest.mark.parametrize("given", ["a", "b", "ключ"])
def test_any_of_the_passwords(given: str) -> None:
    gate = Gate.of("", ["a", "b", "ключ"])
    assert gate.admit(signed("x", pass_=given)) == (Turn("user", "x"),)
    answer = gate.check_password(json.dumps({"pass": given}).encode())
    assert (answer.status, answer.body) == (200, b'{"code":0}')


@pytest.mark.parametrize("given", [None, 1, "", "any"])
def test_a_site_without_passwords(given: object) -> None:
    assert OPEN.admit(signed("x", pass_=given)) == (Turn("user", "x"),)


def test_the_order_of_the_checks() -> None:
    gate = Gate.of("", ["p"])
    first: dict[str, Any] = {"role": "system"}
    last: dict[str, Any] = {"role": "model"}
    wrong: dict[str, Any] = {"messages": [first, last], "pass_": "wrong", "sign": ""}
    assert refused(gate, signed("a", **wrong)) == (400, HISTORY)
    last["role"] = "user"
    assert refused(gate, signed("a", **wrong)) == (401, PASSWORD)
    wrong["pass_"] = "p"
    assert refused(gate, signed("a", **wrong)) == UNREADABLE
    last["parts"] = [{"text": "a"}]
    assert refused(gate, signed("a", **wrong)) == (401, SIGNATURE)
    del wrong["sign"]
    assert refused(gate, signed("a", **wrong)) == UNREADABLE
    first["parts"] = []
    assert refused(gate, signed("a", **wrong)) == (500, ROLE)
    first["role"] = "model"
    assert gate.admit(signed("a", **wrong)) == (Turn("model", ""), Turn("user", "a"))


def test_a_lone_surrogate_is_signed_as_in_browsers() -> None:
    message = {"role": "user", "parts": [{"text": "a\ud83d"}, {"text": "\ude00"}]}
    body = signed("a\ufffd\ufffd", messages=[message])
    assert OPEN.admit(body) == (Turn("user", "a\ufffd\ufffd"),)


def test_secrets_and_prompts_stay_out_of_reprs() -> None:
    assert "secret" not in repr(Gate.of("secret", ["secret"]))
    assert repr(Turn("user", "secret")) == "Turn(role='user', 6 characters)"


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"passwords": "secret"}, TypeError, "tuple"),
        ({"passwords": ["a", ""]}, ValueError, "empty password"),
        ({"secret_key": "\udc80"}, ValueError, "Unicode"),
    ],
)
def test_invalid_settings(options: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        create_app(**options)
