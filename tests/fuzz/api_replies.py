"""Fuzzer of replies and errors of model APIs: the same result for any split, and one kind of error.

It imports from `tests/`: `PYTHONPATH=tests python tests/fuzz/api_replies.py`.
"""

from __future__ import annotations

from typing import Literal

from support.api_transcripts import ERRORS, REPLIES
from support.decoding import KEY, WIRES, decode
from support.mutating import fuzz

from gprochat_anyio import AuthenticationError, RateLimitError, SiteError, UnexpectedResponseError

APIS = ("openai", "gemini")
KINDS = {SiteError, AuthenticationError, RateLimitError, UnexpectedResponseError}
STATUSES = (400, 401, 403, 404, 429, 500, 502, 503, 504, 599, 100, 201)


def TestOneInput(data: bytes) -> None:  # noqa: N802 - atheris requires the name
    flags, size, most = (*data[:3], 0, 0, 0)[:3]
    body, api, limit = data[3:], APIS[flags & 1], most if flags & 4 else None
    end: Literal["finish", "cut"] = "cut" if flags & 2 else "finish"
    whole = decode(api, [body], end, max_size=limit)
    for step in (size % 40 + 1, 1):
        parts = [body[start : start + step] for start in range(0, len(body), step)]
        split = decode(api, parts, end, max_size=limit)
        assert split == whole, (step, split, whole)
    assert whole.is_whole or whole.failure or end == "cut"
    assert limit is None or len(whole.text.encode()) <= limit
    status = STATUSES[size % len(STATUSES)]
    error = WIRES[api].read_error(status, {}, body)
    assert type(error) in KINDS
    assert error.status == status
    assert str(error).isprintable(), repr(str(error))
    for each in (str(error), repr(vars(error)), repr(whole.failure)):
        assert KEY not in each


def seeds() -> list[bytes]:
    found = []
    for transcript in REPLIES + ERRORS:
        head = APIS.index(transcript.api)
        found += [bytes((head | flags, 7, 9)) + transcript.body for flags in (0, 2, 4)]
        found.append(bytes((head, 7, 9)) + transcript.body.replace(b"message", KEY.encode()))
    return [*found, b'\0\0\0error: {"code":400}\n\n', b"\0\0\0data: [DONE]"]


if __name__ == "__main__":
    fuzz(TestOneInput, seeds())
