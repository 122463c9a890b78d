"""All recorded exchanges of all APIs, over TCP: in one piece, in single bytes, and to a slow
reader."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from support.recordings import (
    API_RECORDINGS,
    ERRORS,
    RECORDINGS,
    SITE_RECORDINGS,
    TEXTS,
    TRANSCRIPTS,
    Recording,
)

from gprochat_anyio import Client, GPROChatError, Retry
from gprochat_anyio._wire.gprochat import encode_generate
from gprochat_anyio._wire.messages import Message
from gprochat_anyio.testing import Raw, live_site


def test_there_are_sixteen() -> None:
    assert {t["name"] for t in TRANSCRIPTS} == TEXTS.keys() | ERRORS.keys()
    assert len(TRANSCRIPTS) == len(SITE_RECORDINGS) == 16


def test_there_are_fourteen_of_other_apis() -> None:
    assert len(API_RECORDINGS) == len({*map(str, API_RECORDINGS)}) == 14


def reads_of(recording: Recording, split: str) -> list[bytes]:
    wire = recording.wire
    if split == "as recorded":
        return [*recording.reads]
    if split == "whole":
        return [wire]
    reads = [bytes([byte]) for byte in wire]
    if len(reads) > 5000:  # each byte of the first two chunks and the last, the rest in one piece
        return [*reads[:220], wire[220:-100], *reads[-100:]]
    return reads


SPLITS = [
    (recording, split)
    for recording in RECORDINGS
    for split in ("as recorded", "whole", "single bytes")
    if len(recording.reads) > 1 or split != "as recorded"
]
WAYS = ("ask", "stream", "slow reader")


@pytest.mark.parametrize(
    ("recording", "split", "way"),
    [
        # The ways to receive alternate: any of them reads any split.
        pytest.param(
            recording,
            split,
            way,
            marks=[] if number % 3 == turn else pytest.mark.full,
            id=f"{split}-{recording}-{way}",
        )
        for number, (recording, split) in enumerate(SPLITS)
        for turn, way in enumerate(WAYS)
    ],
)
async def test_transcript(recording: Recording, way: str, split: str) -> None:
    reads = reads_of(recording, split)
    with anyio.fail_after(20):
        async with (
            live_site([Raw(read) for read in reads]) as site,
            recording.api.client(site.url, retry=Retry(attempts=1)) as client,
        ):
            error = recording.whole.error
            if error is None:
                assert await _text(client, way) == recording.whole.text
                return
            with pytest.raises(GPROChatError) as caught:
                await _text(client, way)
            assert type(caught.value) is error
            for fact, value in recording.facts:
                assert getattr(caught.value, fact) == value


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
