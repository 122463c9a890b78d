"""Fuzzer of the site's gate: it accepts signed requests with the password, and refuses others in
JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from support.mutating import TRANSCRIPTS, fuzz

from gprochat_anyio._wire.admission import Gate, Refusal, WireResponse
from gprochat_anyio._wire.gprochat import sign
from gprochat_anyio.testing._transcripts import transcripts_in

KEY, PASSWORD = "a key", "hunter2"
OPEN, CLOSED = Gate.of("", ()), Gate.of(KEY, (PASSWORD, "another"))


def outcome_of(call: Callable[[], Any]) -> Any:
    """Return the call's result, or the response with which the gate refuses."""
    try:
        return call()
    except Refusal as refusal:
        answer = refusal.response
        assert answer.status in (400, 401, 500)
        if answer.body:
            assert set(json.loads(answer.body)) == {"error"}
        return answer


def signed(body: bytes, key: str) -> bytes:
    """Return the body with a valid signature and password, if it resembles a request."""
    try:
        request = json.loads(body)
        request["sign"] = sign(
            request["time"], "".join(p["text"] for p in request["messages"][-1]["parts"]), key
        )
        request["pass"] = PASSWORD
        return json.dumps(request).encode()
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return body


def TestOneInput(data: bytes) -> None:  # noqa: N802 - atheris requires the name
    for gate, key in ((OPEN, ""), (CLOSED, KEY)):
        for body in (data, signed(data, key)):
            outcome = outcome_of(lambda gate=gate, body=body: gate.admit(body))  # type: ignore[misc]
            if isinstance(outcome, WireResponse):
                continue
            request = json.loads(body.decode("utf-8-sig"))
            texts = [turn.text for turn in outcome]
            assert all(isinstance(text, str) for text in texts)
            assert all(text.encode() is not None for text in texts)
            assert outcome[-1].role == "user"
            assert request["sign"] == sign(request["time"], texts[-1], key)
            assert gate is OPEN or request["pass"] in gate.passwords
            assert len(outcome) == len(request["messages"])
        told = outcome_of(lambda gate=gate: gate.check_password(data))  # type: ignore[misc]
        assert told.status in (200, 500)


def seeds() -> list[bytes]:
    bodies = [json.dumps(t.request).encode() for t in transcripts_in([TRANSCRIPTS])]
    return [*bodies, b'{"pass": "hunter2"}', b"\xef\xbb\xbf{}", b"[" * 5000]


if __name__ == "__main__":
    fuzz(TestOneInput, seeds())
