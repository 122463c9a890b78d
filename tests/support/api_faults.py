"""Faults of model APIs in response bodies. Other faults are the same for all APIs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from gprochat_anyio import (
    AuthenticationError,
    RateLimitError,
    ReplyInterruptedError,
    RequestTimeoutError,
    SiteConnectionError,
    SiteError,
    UnexpectedResponseError,
)
from gprochat_anyio.testing import Drop, Hang, Pause, Raw, Refuse

from .apis import MODEL_APIS, OPENAI, Api
from .decoding import event, said, told
from .faults import Fault
from .response_bytes import LAST_CHUNK, answer, chunk
from .scripted import Endless

_LOST, _CUT, _ODD, _LATE = (
    SiteConnectionError,
    ReplyInterruptedError,
    UnexpectedResponseError,
    RequestTimeoutError,
)
_COMMENT = chunk(b": keep-alive\n\n")
_500 = b"HTTP/1.1 500 Oh\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
_RATE_LIMIT = {"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}}
_OVERLOADED = {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}
_DELAY = {"retryDelay": "0.25s"}
_JSON = {"Content-Type": "application/json"}


def faults_of(api: Api) -> Iterator[Fault]:
    """Return the faults of an API."""
    head, one = api.head, api.head + api.said("one")
    thought = _thought(api)
    for phase, entries in {
        "head": [
            ("FIN at once", _LOST, Drop(), 3),
            ("no reply, but HTML", _ODD, Raw(_with(head, b"text/html") + LAST_CHUNK), 1),
            ("no reply, but text", _ODD, Raw(_with(head, b"text/plain") + LAST_CHUNK), 1),
            ("redirect", _ODD, Raw(answer(307, b"", {"Location": "http://127.0.0.1:9/"})), 1),
            ("compressed", _ODD, Raw(_encoded(head) + chunk(bytes(99))), 1),
            ("JSON", _ODD, Raw(answer(200, b'{"choices": []}', _JSON)), 1),
        ],
        "first_chunk": [
            *_body_faults(head, "first_chunk", attempts=3, text=""),
            (
                "trickle of comments",
                _LATE,
                [Raw(head), *[Raw(_COMMENT), Pause(1)] * 99],
                1,
                "first_chunk",
            ),
            (
                "trickle of thoughts",
                _LATE,
                [Raw(head), *[Raw(thought), Pause(1)] * 99],
                1,
                "first_chunk",
            ),
            ("rate limit", RateLimitError, _ending(head, _RATE_LIMIT), 3),
            ("overload", SiteError, _ending(head, _OVERLOADED), 3),
            ("filter", SiteError, _ending(head, _filtered(api)), 1),
            ("limit of tokens", SiteError, _ending(head, _too_long(api)), 1),
        ],
        "body": [
            *_body_faults(one, "idle", attempts=1, text="one"),
            (
                "trickle of comments",
                _LATE,
                [Raw(one), *[Raw(_COMMENT), Pause(1)] * 99],
                1,
                "idle",
                "one",
            ),
            (
                "trickle of thoughts",
                _LATE,
                [Raw(one), *[Raw(thought), Pause(1)] * 99],
                1,
                "idle",
                "one",
            ),
            (
                "text without end",
                _CUT,
                Endless(one, api.said("x" * 1000)),
                1,
                None,
                "one" + "x" * 9997,
            ),
            ("rate limit", RateLimitError, _ending(one, _RATE_LIMIT), 1, None, "one"),
            ("overload", SiteError, _ending(one, _OVERLOADED), 1, None, "one"),
            ("filter", SiteError, _ending(one, _filtered(api)), 1, None, "one"),
        ],
        "error response": [
            ("stall", _LATE, [Raw(_500 + b"5;"), Hang()], 1, "first_chunk"),
            ("FIN", _CUT, [Raw(_500 + b"5\r\n{"), Drop()], 3),
            ("RST", _CUT, [Raw(_500 + b"5\r\n{"), Drop(reset=True)], 3),
            ("garbage", _CUT, Raw(_500 + b"zz\r\n"), 3),
            ("oversize", _ODD, Endless(_500, chunk(b"x" * 1000)), 1),
            ("rate limit", RateLimitError, Refuse(429, "slow down"), 3),
            ("rate limit by a delay", RateLimitError, Raw(_delayed()), 3),
            ("rate limit, RST", RateLimitError, [Raw(_limited()), Drop(reset=True)], 3),
            ("wrong key", AuthenticationError, Refuse(401, "no such key"), 1),
            ("overload", SiteError, Refuse(503, "overloaded"), 3),
        ],
        "kept connection": [
            ("FIN", _LOST, Drop(), 3),
            ("RST", _LOST, Drop(reset=True), 3),
        ],
    }.items():
        for entry in entries:
            yield replace(Fault(phase, *entry), api=api)


def _body_faults(start: bytes, clock: Any, *, attempts: int, text: str) -> Iterator[Any]:
    """Return the faults of a body that are the same before and after the first text."""
    yield "stall", _LATE, [Raw(start + b"5;"), Hang()], 1, clock, text
    yield "trickle", _LATE, [Raw(start + b"5;"), *[Raw(b"a"), Pause(1)] * 1000], 1, clock, text
    for kind, end in (("FIN", Drop()), ("RST", Drop(reset=True))):
        yield kind, _CUT, [Raw(start + chunk(b"data: {")), end], attempts, None, text
        yield f"{kind} in a chunk", _CUT, [Raw(start + b"9\r\ndata"), end], attempts, None, text
    for kind, data in {
        "garbage": b"data: {]\n\n",
        "no UTF-8": b'data: {"a": "\xff"}\n\n',
        "no finish reason": b"data: [DONE]\n\n",
        "no event": b": bye\n\n",
    }.items():
        yield kind, _CUT, Raw(start + chunk(data) + LAST_CHUNK), attempts, None, text
    yield "no chunk", _CUT, Raw(start + b"zz\r\n"), attempts, None, text
    yield "wrong framing", _CUT, Raw(start + b"2\r\nokX"), attempts, None, text
    yield (
        "oversize",
        _CUT,
        Endless(start + b"fffffff\r\ndata: ", b"x" * 60_000),
        attempts,
        None,
        text,
    )


def _ending(start: bytes, value: Any) -> Raw:
    return Raw(start + chunk(event(value)) + LAST_CHUNK)


def _with(head: bytes, kind: bytes) -> bytes:
    return head.replace(b"text/event-stream", kind)


def _encoded(head: bytes) -> bytes:
    return head[:-2] + b"Content-Encoding: gzip\r\n\r\n"


def _filtered(api: Api) -> Any:
    return said(reason="content_filter") if api is OPENAI else told(reason="SAFETY")


def _too_long(api: Api) -> Any:
    return said(reason="length") if api is OPENAI else told(reason="MAX_TOKENS")


def _thought(api: Api) -> bytes:
    if api is OPENAI:
        return chunk(event({"choices": [{"index": 0, "delta": {"reasoning_content": "Hm."}}]}))
    part = {"text": "Hm.", "thought": True}
    return chunk(event(told(content={"parts": [part]})))


def _delayed() -> bytes:
    error = {**_RATE_LIMIT["error"], "details": [_DELAY]}
    return answer(429, json.dumps({"error": error}).encode(), _JSON)


def _limited() -> bytes:
    return b"HTTP/1.1 429 Slow\r\nContent-Length: 99\r\nRetry-After: 1\r\n\r\n{"


API_FAULTS = [fault for api in MODEL_APIS for fault in faults_of(api)]
