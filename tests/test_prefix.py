"""Every recorded answer, ended at every byte: the text that was sent, then one error, and never a
success. From the first text on by FIN and by RST, to a consumer that keeps up and to one that only
reads once all is over."""

from __future__ import annotations

import codecs
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import anyio
import pytest
from faults import WAYS, assert_ours, receive_by
from loops import VIRTUAL_LOOPS
from scripted import End, Script, Site, loopback_site, memory_site
from test_transcripts import ERRORS, TEXTS, TRANSCRIPTS

from gprochat_anyio import (
    Client,
    GPROChatError,
    ReplyInterruptedError,
    Retry,
    SiteConnectionError,
)
from gprochat_anyio._decoder import ReplyDecoder
from gprochat_anyio.transport._parser import AnswerParser

virtual = pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)
every_transcript = pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda t: t["name"])
every_end = pytest.mark.parametrize("end", End)

ONCE = Retry(attempts=1)


def wire_of(transcript: dict[str, Any]) -> bytes:
    return b"".join(bytes.fromhex(read["hex"]) for read in transcript["response"])


def text_in(wire: bytes) -> str:
    """A model of what a 200 answer that is cut gives: the whole characters of its chunks' data,
    without a last chunk that says that the model failed."""
    _, _, rest = wire.partition(b"\r\n\r\n")
    chunks = []
    while rest:
        line, found, rest = rest.partition(b"\r\n")
        if not found:
            break
        size = int(line, 16)
        chunks.append(rest[:size])
        rest = rest[size + 2 :]
    chunks = [chunk for chunk in chunks if chunk]
    if chunks and chunks[-1] == b"Internal server error":
        chunks.pop()
    return codecs.getincrementaldecoder("utf-8")().decode(b"".join(chunks))


def expected(transcript: dict[str, Any], cut: int) -> tuple[type[GPROChatError], str]:
    """The error of an answer that ends after so many bytes, and its partial text."""
    if not cut:
        return SiteConnectionError, ""
    if transcript["name"] in ERRORS and not transcript["name"].startswith("upstream"):
        return ReplyInterruptedError, ""
    return ReplyInterruptedError, text_in(wire_of(transcript)[:cut])


def offsets(transcript: dict[str, Any]) -> list[int]:
    """All of them; of the answer with a thousand equal chunks, those in the first and the last."""
    every = range(len(wire_of(transcript)))
    return [*every] if len(every) < 2000 else [*every[:240], *every[-70:]]


@asynccontextmanager
async def cut_site(
    monkeypatch: pytest.MonkeyPatch,
    transcript: dict[str, Any],
    cuts: list[int],
    end: End,
    reads: int = 1,
) -> AsyncIterator[Site]:
    """A site whose n-th answer ends at the n-th cut, and comes in so many reads at the most."""
    wire = wire_of(transcript)
    size = -(-len(wire) // reads)
    scripts: list[Script] = [
        (*[wire[start : min(start + size, cut)] for start in range(0, cut, size)], end)
        for cut in cuts
    ]
    async with memory_site(monkeypatch, *scripts) as site:
        yield site


@virtual
@every_end
@every_transcript
async def test_every_offset(
    monkeypatch: pytest.MonkeyPatch, transcript: dict[str, Any], end: End
) -> None:
    head = wire_of(transcript).index(b"\r\n\r\n")
    for number, way in enumerate(WAYS[:3]):  # within the head, they take turns
        cuts = [cut for cut in offsets(transcript) if cut > head or cut % 3 == number]
        async with cut_site(monkeypatch, transcript, cuts, end) as site:
            async with Client(site.url, retry=ONCE) as client:
                for cut in cuts:
                    kind, text = expected(transcript, cut)
                    pieces: list[str] = []
                    with pytest.raises(GPROChatError) as caught:
                        await receive_by(way, client, into=pieces)
                    assert_ours(caught.value, kind, text)
                    assert way == "ask" or "".join(pieces) == text
                assert len(site.requests) == len(cuts)


def with_text(transcript: dict[str, Any]) -> list[int]:
    return [cut for cut in offsets(transcript) if expected(transcript, cut)[1]]


REPLIES = pytest.mark.parametrize(
    "transcript", [t for t in TRANSCRIPTS if with_text(t)], ids=lambda t: t["name"]
)


@virtual
@every_end
@REPLIES
async def test_every_offset_to_a_slow_consumer(
    monkeypatch: pytest.MonkeyPatch, transcript: dict[str, Any], end: End
) -> None:
    """Which reads once the end has come; what comes behind the error is that error."""
    cuts = with_text(transcript)
    async with cut_site(monkeypatch, transcript, cuts, end, 12) as site:
        async with Client(site.url, retry=ONCE) as client:
            for cut in cuts:
                kind, text = expected(transcript, cut)
                pieces: list[str] = []
                async with client.stream("hello") as chunks:
                    while site.open:
                        await site.closed.wait()
                    with pytest.raises(GPROChatError) as caught:
                        async for piece in chunks:
                            pieces.append(piece)  # noqa: PERF401 - until the error
                    with pytest.raises(GPROChatError) as again:
                        await chunks.receive()
                assert again.value is caught.value
                assert_ours(caught.value, kind, text)
                assert "".join(pieces) == chunks.text == text


@virtual
@every_end
@REPLIES
async def test_every_offset_to_a_full_channel(
    monkeypatch: pytest.MonkeyPatch, transcript: dict[str, Any], end: End
) -> None:
    cuts = with_text(transcript)
    async with cut_site(monkeypatch, transcript, cuts, end, 12) as site:
        async with Client(site.url, retry=ONCE) as client:
            for cut in cuts:
                kind, text = expected(transcript, cut)
                send, receive = anyio.create_memory_object_stream[str](0)
                caught: list[GPROChatError] = []

                async def ask(send: Any = send, caught: list[GPROChatError] = caught) -> None:
                    try:
                        await client.stream_to("hello", send)
                    except GPROChatError as failure:
                        caught.append(failure)

                pieces: list[str] = []
                async with anyio.create_task_group() as tasks, receive:
                    tasks.start_soon(ask)
                    await anyio.wait_all_tasks_blocked()
                    pieces += [piece async for piece in receive]
                assert_ours(caught[0], kind, text)
                assert "".join(pieces) == text


@virtual
@every_end
@REPLIES
async def test_every_offset_to_the_providers_consumer(
    monkeypatch: pytest.MonkeyPatch, transcript: dict[str, Any], end: End
) -> None:
    cuts = with_text(transcript)
    async with cut_site(monkeypatch, transcript, cuts, end, 12) as site, Client(site.url) as client:
        for cut in cuts:
            kind, text = expected(transcript, cut)
            pieces: list[str] = []
            with pytest.raises(GPROChatError) as caught:
                await receive_by("provider", client, into=pieces)
            assert_ours(caught.value, kind, text)
            assert "".join(pieces) == text


def test_every_offset_of_a_thousand_chunks() -> None:
    """What the others leave out, without an event loop: one byte of the wire after the other."""
    (transcript,) = (t for t in TRANSCRIPTS if t["name"] == "reply_1000_tokens")
    wire = wire_of(transcript)
    parser, decoder, text, steps = AnswerParser(), ReplyDecoder(), "", 0
    for start, end in pairwise(range(len(wire) + 1)):
        parser.feed(wire[start:end])
        if pieces := parser.take():
            text += decoder.feed(pieces, parser.open_chunk_size)
        if start % 37 == 0 or end > len(wire) - 100:
            assert text == text_in(wire[:end])
            steps += 1
        assert TEXTS["reply_1000_tokens"].startswith(text)
        assert parser.complete is (end == len(wire))
    assert steps > 600
    decoder.finish()
    assert (decoder.failure, text) == (None, TEXTS["reply_1000_tokens"])


@every_end
@pytest.mark.parametrize("slow", [False, True], ids=["fast", "slow"])
@pytest.mark.parametrize(
    "transcript",
    [t for t in TRANSCRIPTS if t["name"] in ("reply_utf8", "reply_1000_tokens")],
    ids=lambda t: t["name"],
)
async def test_over_sockets(transcript: dict[str, Any], end: End, *, slow: bool) -> None:
    """Linux keeps what came before a reset; elsewhere a reset may overtake it."""
    wire = wire_of(transcript)
    exact = end is End.FIN or sys.platform == "linux"
    for cut in range(wire.index(b"\r\n\r\n") + 8, len(wire), 7 if len(wire) < 2000 else 997):
        kind, text = expected(transcript, cut)
        with anyio.fail_after(20):
            async with loopback_site((wire[:cut], end)) as site:
                async with Client(site.url, retry=ONCE) as client:
                    pieces: list[str] = []
                    with pytest.raises(GPROChatError) as caught:
                        async with client.stream("hello") as chunks:
                            while slow and site.open:
                                await site.closed.wait()
                            async for piece in chunks:
                                pieces.append(piece)  # noqa: PERF401
        got = "".join(pieces)
        assert_ours(caught.value, kind, got)
        assert got == text if exact else text.startswith(got)
