"""Recorded responses of all APIs, and the expected result of any part of one."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gprochat_anyio import (
    AuthenticationError,
    EmptyReplyError,
    GPROChatError,
    RateLimitError,
    ReplyInterruptedError,
    SiteConnectionError,
    SiteError,
)

from .api_transcripts import ERRORS as API_ERRORS
from .api_transcripts import REPLIES as API_REPLIES
from .api_transcripts import ApiTranscript
from .apis import APIS, GPROCHAT, Api
from .faults import assert_ours

TRANSCRIPTS = [
    json.loads(path.read_bytes())
    for path in sorted((Path(__file__).parents[1] / "transcripts").glob("*.json"))
]
"""Recordings of GPROChat sites."""

TEXTS = {
    "reply_1000_tokens": "".join(f"token-{n:010}" for n in range(1000)),
    "reply_history": json.dumps(
        [
            {"role": "user", "parts": [{"text": "a"}]},
            {"role": "model", "parts": [{"text": "b"}]},
            {"role": "user", "parts": [{"text": "history"}]},
        ]
    ),
    "reply_slow_start": "slow-start 1",
    "reply_stall": "before after",
    "reply_utf8": "Привет, как дела? 😀 Всё хорошо",
}

ERRORS: dict[str, tuple[type[GPROChatError], dict[str, Any]]] = {
    "error_bad_password": (
        AuthenticationError,
        {"status": 401, "site_message": "Invalid password."},
    ),
    "error_bad_signature": (
        AuthenticationError,
        {"status": 401, "site_message": "Invalid signature."},
    ),
    "error_last_role_model": (SiteError, {"status": 400, "code": None}),
    "error_missing_parts": (SiteError, {"status": 500, "site_message": None}),
    "error_no_messages": (SiteError, {"status": 400}),
    "error_upstream_400": (SiteError, {"status": 500, "code": "Error"}),
    "error_upstream_429": (RateLimitError, {"status": 500, "code": "Error", "retry_after": None}),
    "error_upstream_500": (SiteError, {"status": 500, "code": "Error"}),
    "reply_empty": (EmptyReplyError, {}),
    "upstream_dies_first": (ReplyInterruptedError, {"partial_text": ""}),
    "upstream_dies_midway": (ReplyInterruptedError, {"partial_text": "t0 t1 t2 "}),
}


@dataclass(frozen=True, slots=True)
class Expected:
    """The expected result of a response, or of a part of one: its text, and an error if any."""

    text: str = ""
    error: type[GPROChatError] | None = None

    @contextmanager
    def by(self, pieces: list[str] | None, *, exact: bool = True) -> Iterator[list[GPROChatError]]:
        """Assert that the block receives this result. Yield a list that gets the error.

        :param pieces: Gets the text in the block. None if the block returns the text.
        :param exact: False if the end of the connection may overtake earlier data.
        """
        caught: list[GPROChatError] = []
        try:
            yield caught
        except GPROChatError as failure:
            caught.append(failure)
        got = self.text if pieces is None else "".join(pieces)
        if exact or got == self.text:
            assert got == self.text
            assert [*map(type, caught)] == ([] if self.error is None else [self.error])
        else:
            assert self.text.startswith(got)
            assert [*map(type, caught)] == [ReplyInterruptedError]
        for error in caught:
            assert_ours(error, type(error), got)


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded response.

    :param reads: The response, in its original reads.
    :param whole: The expected result of the complete response.
    :param facts: The attributes of the error.
    """

    api: Api
    name: str
    reads: tuple[bytes, ...]
    whole: Expected
    facts: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return self.name if self.api is GPROCHAT else f"{self.api}: {self.name}"

    @property
    def wire(self) -> bytes:
        return b"".join(self.reads)

    @property
    def start(self) -> int:
        """The offset at which the body begins."""
        return self.wire.index(b"\r\n\r\n") + 4

    @property
    def is_reply(self) -> bool:
        return self.wire.startswith(b"HTTP/1.1 200")

    def cut(self, place: int) -> Expected:
        """Return the expected result if the connection ends after a number of bytes."""
        if not place:
            return Expected("", SiteConnectionError)
        wire = self.wire[:place]
        if place < self.start:
            return Expected("", ReplyInterruptedError)
        if wire.startswith(b"HTTP/1.1 429"):
            return Expected("", RateLimitError)  # the head suffices
        if not self.is_reply:
            return Expected("", ReplyInterruptedError)
        body = _dechunked(wire)
        if self.api is GPROCHAT:
            body = body.removesuffix(b"Internal server error")
            text = codecs.getincrementaldecoder("utf-8")().decode(body)
            return Expected(text, ReplyInterruptedError)
        text, last = _read_events(body)
        return self.whole if last else Expected(text, ReplyInterruptedError)


def _dechunked(wire: bytes) -> bytes:
    """Return the data of a possibly truncated chunked response."""
    _, _, rest = wire.partition(b"\r\n\r\n")
    chunks = []
    while rest:
        line, found, rest = rest.partition(b"\r\n")
        if not found:
            break
        size = int(line, 16)
        chunks.append(rest[:size])
        rest = rest[size + 2 :]
    return b"".join(chunks)


def _read_events(body: bytes) -> tuple[str, bool]:
    """Return the text in the complete events of a body, and True if a reply's last event is among
    them.

    A model of the decoders, for well-formed events with one line of data.
    """
    text = ""
    lines = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for whole in lines.split(b"\n\n")[:-1]:
        data = whole.removeprefix(b"data: ")
        if not data.startswith(b"{"):
            continue
        value = json.loads(data)
        if "promptFeedback" in value:
            return text, True
        for candidate in value.get("candidates", ()):  # Gemini's
            parts = candidate.get("content", {}).get("parts", ())
            text += "".join(part["text"] for part in parts if not part.get("thought"))
            if candidate.get("finishReason"):
                return text, True
        for choice in value.get("choices", ()):  # OpenAI's
            text += choice["delta"].get("content", "")
            if choice.get("finish_reason"):
                return text, True
    return text, False


def _of_site(transcript: dict[str, Any]) -> Recording:
    name = transcript["name"]
    reads = tuple(bytes.fromhex(read["hex"]) for read in transcript["response"])
    if name in TEXTS:
        return Recording(GPROCHAT, name, reads, Expected(TEXTS[name]))
    kind, facts = ERRORS[name]
    whole = Expected(facts.get("partial_text", ""), kind)
    return Recording(GPROCHAT, name, reads, whole, tuple(facts.items()))


def _of_api(transcript: ApiTranscript) -> Recording:
    (api,) = (api for api in APIS if api.name == transcript.api)
    facts = {"status": transcript.status} if transcript.error else {}
    return Recording(
        api,
        transcript.name,
        (transcript.response(),),
        Expected(transcript.text, transcript.error),
        tuple(facts.items()),
    )


SITE_RECORDINGS = [_of_site(transcript) for transcript in TRANSCRIPTS]
API_RECORDINGS = [_of_api(transcript) for transcript in API_REPLIES + API_ERRORS]
RECORDINGS = SITE_RECORDINGS + API_RECORDINGS
