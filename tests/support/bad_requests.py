"""Requests that every site with these credentials refuses, by their defect."""

from __future__ import annotations

from typing import Any

from gprochat_anyio._wire.gprochat import sign

from .site_wire import TIME, signed

SECRET_KEY = "ключ"
PASSWORD = "pass"
USER: dict[str, Any] = {"role": "user", "parts": [{"text": "a"}]}


def asking(*messages: object, **fields: Any) -> bytes:
    """Return a valid request, with `fields` replaced."""
    given = {"secret_key": SECRET_KEY, "pass_": PASSWORD, "messages": messages, **fields}
    return signed("a", **given)


_JSON = [b"", b"{", b"\xff", b'"\xff"', b"nul", b"[" * 100_000, b"[NaN]", b'{"time": Infinity}']
_OBJECTS = [b"null", b"1", b"true", b'"x"', b"[]", b"{}", b"[{}]", "[]".encode("utf-16")]
_MESSAGES: list[Any] = [None, 1, True, "user", {}, {"0": USER}, [], [None], [1], [[]], [USER, 7]]
_ROLES: list[Any] = [None, 1, [], {}, "", "model", "USER", "system"]
_PARTS: list[Any] = [
    None,
    1,
    "a",
    {},
    ["a"],
    [None],
    [{}],
    [{"text": None}],
    [{"text": 1}],
    [3, {"text": ""}],
]
_SIGNATURES: list[Any] = [None, 1, [], "", "0" * 64, sign(TIME, "a", SECRET_KEY).upper(), "\ud800"]
_TIMES: list[Any] = [None, "1", [], True, 1.0, str(TIME), float(TIME), TIME + 1]
_PASSWORDS: list[Any] = [None, 1, [], "", "Pass", "\ud800", ["pass"]]
_EARLIER: list[Any] = [
    None,
    1,
    "x",
    [],
    {},
    {"role": "user"},
    USER | {"role": "system"},
    USER | {"role": 1},
]

BAD_REQUESTS: list[bytes] = [
    *_JSON,
    *_OBJECTS,
    *(signed(messages=messages) for messages in _MESSAGES),
    *(asking(USER, USER | {"role": role}) for role in _ROLES),
    *(asking({"role": "user", "parts": parts}) for parts in _PARTS),
    *(asking({"role": "user", "parts": parts}, USER) for parts in _PARTS),
    *(asking(USER, sign=given) for given in _SIGNATURES),
    *(asking(USER, time=given) for given in _TIMES),
    *(asking(USER, pass_=given) for given in _PASSWORDS),
    *(asking(message, USER) for message in _EARLIER),
    asking({"role": "user", "parts": [{"text": "\ud83d"}, {"text": "\ude00"}]}),
    asking({"role": "system"}, {"role": "model"}, pass_="wrong", sign=""),
    asking({"role": "system"}, {"role": "user"}, pass_="wrong", sign=""),
    asking({"role": "system"}, {"role": "user"}, sign=""),
    asking({"role": "system"}, USER, sign=""),
    asking({"role": "system", "parts": []}, USER),
]
