"""The APIs that clients speak, as scripted sites serve them: for tests over all APIs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from gprochat_anyio import Client
from gprochat_anyio._wire.usage import Usage

from .decoding import event, events, said, told
from .response_bytes import LAST_CHUNK, REPLY_HEAD, chunk, reply_head

EVENTS_HEAD = reply_head("text/event-stream")
USAGE = Usage(4, 2)
"""The token counts of every reply of an API that counts tokens."""


@dataclass(frozen=True, slots=True)
class Api:
    """An API under test: its client, and the encoding of its replies.

    :param head: The head of a reply.
    :param piece: Encodes a text as a part of a reply's body.
    :param ending: The end of a reply's body.
    :param make: Makes a client, from a URL and settings.
    """

    name: str
    head: bytes
    piece: Callable[[str], bytes]
    ending: bytes
    make: Callable[..., Client]

    def __str__(self) -> str:
        return self.name

    def client(self, url: str, **settings: Any) -> Client:
        """Return a client of a server with this API."""
        return self.make(url, **{"trust_env": False, **settings})

    def said(self, *texts: str) -> bytes:
        """Return the texts, each encoded in one HTTP chunk."""
        return b"".join(chunk(self.piece(text)) for text in texts)

    @property
    def end(self) -> bytes:
        """The end of a reply's response."""
        return (chunk(self.ending) if self.ending else b"") + LAST_CHUNK

    def reply(self, *texts: str) -> bytes:
        """Return a complete response."""
        return self.head + self.said(*texts) + self.end


def _openai(url: str, **settings: Any) -> Client:
    model = settings.pop("model", "gpt-4.1")
    return Client.openai(url, model=model, **settings)


def _gemini(url: str, **settings: Any) -> Client:
    key = settings.pop("api_key", "a-made-up-key")
    return Client.gemini(base_url=url, api_key=key, **settings)


GPROCHAT = Api(
    "gprochat",
    REPLY_HEAD,
    str.encode,
    b"",
    Client,
)
OPENAI = Api(
    "openai",
    EVENTS_HEAD,
    lambda text: event(said(text)),
    events(
        said(reason="stop"),
        {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2}},
        b"[DONE]",
    ),
    _openai,
)
GEMINI = Api(
    "gemini",
    EVENTS_HEAD,
    lambda text: event(told(text)),
    event(
        {
            **told(reason="STOP"),
            "usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": 2},
        }
    ),
    _gemini,
)

MODEL_APIS = [OPENAI, GEMINI]
APIS = [GPROCHAT, *MODEL_APIS]

every_api = pytest.mark.parametrize("api", APIS, ids=str)
every_model_api = pytest.mark.parametrize("api", MODEL_APIS, ids=str)
