"""All recorded exchanges, over TCP whole, in single bytes and to a slow reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from gprochat_anyio import (
    AuthenticationError,
    Client,
    EmptyReplyError,
    GPROChatError,
    RateLimitError,
    ReplyInterruptedError,
    Retry,
    SiteError,
)
from gprochat_anyio._wire.gprochat import encode_generate
from gprochat_anyio._wire.messages import Message
from gprochat_anyio.testing import Raw, live_site

TRANSCRIPTS = [
    json.loads(path.read_bytes())
    for path in sorted((Path(__file__).parent / "transcripts").glob("*.json"))
]

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


def test_there_are_sixteen() -> None:
    assert {t["name"] for t in TRANSCRIPTS} == TEXTS.keys() | ERRORS.keys()
    assert len(TRANSCRIPTS) == 16


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda t: t["name"])
@pytest.mark.parametrize("way", ["ask", "stream", "slow reader"])
@pytest.mark.parametrize("split", ["as recorded", "whole", "single bytes"])
async def test_transcript(transcript: dict[str, Any], way: str, split: str) -> None:
    reads = [bytes.fromhex(read["hex"]) for read in transcript["response"]]
    if split == "whole":
        reads = [b"".join(reads)]
    elif split == "single bytes":
        reads = [bytes([byte]) for byte in b"".join(reads)]
        if len(reads) > 2000:  # each byte of the first two chunks and the last, the rest at once
            reads = [*reads[:220], b"".join(reads[220:-100]), *reads[-100:]]
    name = transcript["name"]
    with anyio.fail_after(20):
        async with (
            live_site([Raw(read) for read in reads]) as site,
            site.client(retry=Retry(attempts=1)) as client,
        ):
            if name in TEXTS:
                assert await _text(client, way) == TEXTS[name]
                return
            kind, facts = ERRORS[name]
            with pytest.raises(kind) as caught:
                await _text(client, way)
            assert type(caught.value) is kind
            assert {fact: getattr(caught.value, fact) for fact in facts} == facts


async def _text(client: Client, way: str) -> str:
    if way == "ask":
        return (await client.ask("hello")).text
    pieces = []
    async with client.stream("hello") as chunks:
        async for piece in chunks:
            assert piece
            pieces.append(piece)
            if way == "slow reader":
                for _ in range(10):
                    await anyio.lowlevel.checkpoint()
    assert chunks.text == "".join(pieces)
    return chunks.text


@pytest.mark.parametrize(
    "transcript",
    [t for t in TRANSCRIPTS if t["request"]["sign"].strip("0")],
    ids=lambda t: t["name"],
)
def test_requests_are_signed_as_recorded(transcript: dict[str, Any]) -> None:
    request = transcript["request"]
    body = encode_generate(
        [_turn(m["role"], m["parts"][0]["text"]) for m in request["messages"]],
        secret_key=transcript["secret_key"],
        password=request["pass"],
        timestamp=request["time"],
    )
    assert json.loads(body) == request


def _turn(role: str, text: str) -> Message:
    message = Message(role, text or "a placeholder")
    object.__setattr__(message, "content", text)  # the recording has a blank one
    return message
