"""Replies of model APIs, decoded in any number of parts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from gprochat_anyio import SiteError
from gprochat_anyio._wire.api_wire import ApiWire
from gprochat_anyio._wire.gemini import GeminiWire
from gprochat_anyio._wire.openai import OpenAIWire
from gprochat_anyio._wire.usage import Usage

KEY = "sk-a-made-up-key"
WIRES: dict[str, ApiWire] = {
    "openai": OpenAIWire("gpt-4.1", api_key=KEY),
    "gemini": GeminiWire("gemini-2.5-flash", api_key=KEY),
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """The complete results of a decoder."""

    text: str
    finish_reason: str | None = None
    usage: Usage | None = None
    is_whole: bool = False
    failure: str | tuple[type, str, dict[str, Any]] | None = None

    @property
    def error(self) -> tuple[type, str, dict[str, Any]]:
        """The type, the message and the attributes of the reply's error."""
        assert isinstance(self.failure, tuple)
        return self.failure


def decode(
    api: str,
    parts: Iterable[bytes],
    end: Literal["finish", "cut"] = "finish",
    *,
    max_size: int | None = None,
) -> Decoded:
    decoder = WIRES[api].decoder(max_size)
    text = "".join([decoder.feed(part) for part in parts])
    text += getattr(decoder, end)()
    ended = decoder.is_whole, decoder.failure
    assert decoder.feed(b"data: {}\n\n") + decoder.finish() + decoder.cut() == ""
    assert ended == (decoder.is_whole, decoder.failure)
    assert not (decoder.is_whole and decoder.failure)
    failure = decoder.failure
    return Decoded(
        text,
        decoder.finish_reason,
        decoder.usage,
        decoder.is_whole,
        (type(failure), str(failure), vars(failure)) if isinstance(failure, SiteError) else failure,
    )


def event(value: Any) -> bytes:
    """Return an event with a JSON value, or with these bytes."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return b"data: %b\n\n" % data


def events(*values: Any) -> bytes:
    return b"".join(map(event, values))


def halves(body: bytes) -> Iterator[list[bytes]]:
    """Return the body split at every offset."""
    for place in range(len(body) + 1):
        yield [body[:place], body[place:]]


def single_bytes(body: bytes) -> list[bytes]:
    return [body[i : i + 1] for i in range(len(body))]


def said(text: str | None = None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a chunk of OpenAI's API."""
    delta = {} if text is None else {"content": text}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason, **more}]}


def told(text: str | None = None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a response of the Gemini API."""
    candidate: dict[str, Any] = {"index": 0, **more}
    if text is not None:
        candidate["content"] = {"role": "model", "parts": [{"text": text}]}
    if reason is not None:
        candidate["finishReason"] = reason
    return {"candidates": [candidate]}
