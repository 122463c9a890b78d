"""The APIs that a client speaks, as a scripted site plays them: for tests over all wires."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import pytest

from gprochat_anyio import Client
from gprochat_anyio.testing import (
    Drop,
    Fail,
    Hang,
    Hold,
    MemorySite,
    Raw,
    Refuse,
    Say,
    Script,
    ScriptedSite,
    Step,
    live_site,
    scripted_site,
)
from gprochat_anyio.testing._steps import LAST_CHUNK, REPLY_HEAD, chunk, steps_of

from .decoding import event, events, said, told

EVENTS_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)
USAGE = (4, 2)
"""Input and output tokens of every reply of an API that counts them."""


@dataclass(frozen=True, slots=True)
class Api:
    """An API under test: its client, and how a server encodes a reply.

    :param head: of a reply
    :param piece: encodes a text as a part of a reply's body
    :param ending: the end of a reply's body
    :param make: makes a client, of an address and settings
    :param read: returns the prompt in a request's body
    """

    name: str
    head: bytes
    piece: Callable[[str], bytes]
    ending: bytes
    make: Callable[..., Client]
    read: Callable[[Any], str]

    def __str__(self) -> str:
        return self.name

    def client(self, url: str, **settings: Any) -> Client:
        """Return a client of a server with this API."""
        return self.make(url, **{"trust_env": False, **settings})

    def site(self, *scripts: Script, **settings: Any) -> MemorySite:
        """Return a server in memory. The scripts are those of a GPROChat site."""
        replies = map(self.script, scripts)
        return scripted_site(*replies, strict=self is GPROCHAT, **settings)

    def live_site(self, *scripts: Script) -> AbstractAsyncContextManager[ScriptedSite]:
        """Return a server on 127.0.0.1. The scripts are those of a GPROChat site."""
        return live_site(*map(self.script, scripts), strict=self is GPROCHAT)

    def prompt_of(self, body: Any) -> str:
        """Return the prompt in a request's body."""
        return self.read(body)

    def said(self, *texts: str) -> bytes:
        """Return the texts as they are sent, each as one HTTP chunk."""
        return b"".join(chunk(self.piece(text)) for text in texts)

    @property
    def end(self) -> bytes:
        """The end of a response that is a reply."""
        return (chunk(self.ending) if self.ending else b"") + LAST_CHUNK

    def reply(self, *texts: str) -> bytes:
        """Return a whole response."""
        return self.head + self.said(*texts) + self.end

    def script(self, script: Script) -> Script:
        """Return what a server with this API does where a GPROChat site follows a script.

        Bytes to say, which are not a whole text there, are not a whole event here.
        """
        if self is GPROCHAT:
            return script
        given = list(steps_of(script))
        steps: list[Step | Hold] = []
        rest = self.head
        for step in given:
            if isinstance(step, Say):
                data = b"data: " if isinstance(step.text, bytes) else self.piece(step.text)
                steps.append(Raw(rest + (chunk(data) if step.text else b"")))
                rest = b""
            else:
                steps.append(step)
        ends_itself = isinstance(given[-1] if given else None, Hang | Drop | Refuse | Fail)
        if not ends_itself and not any(isinstance(step, Raw) for step in given):
            steps.append(Raw(rest + self.end))
        return steps


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
    lambda body: body["messages"][-1]["parts"][0]["text"],
)
OPENAI = Api(
    "openai",
    EVENTS_HEAD,
    lambda text: event(said(text)),
    events(
        said(reason="stop"),
        {"choices": [], "usage": {"prompt_tokens": USAGE[0], "completion_tokens": USAGE[1]}},
        b"[DONE]",
    ),
    _openai,
    lambda body: body["messages"][-1]["content"],
)
GEMINI = Api(
    "gemini",
    EVENTS_HEAD,
    lambda text: event(told(text)),
    event(
        {
            **told(reason="STOP"),
            "usageMetadata": {"promptTokenCount": USAGE[0], "candidatesTokenCount": USAGE[1]},
        }
    ),
    _gemini,
    lambda body: body["contents"][-1]["parts"][0]["text"],
)

MODEL_APIS = [OPENAI, GEMINI]
APIS = [GPROCHAT, *MODEL_APIS]

every_api = pytest.mark.parametrize("api", APIS, ids=str)
every_model_api = pytest.mark.parametrize("api", MODEL_APIS, ids=str)
