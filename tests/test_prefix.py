"""Every recorded answer, ended at every byte: the text that was sent, then one error, and never a
success. From the first text on by FIN and by RST, to a consumer that keeps up and to one that only
reads once all is over."""

from __future__ import annotations

import codecs
import sys
from itertools import pairwise
from typing import Any

import anyio
import pytest
from faults import WAYS, assert_ours, receive_by
from loops import VIRTUAL_LOOPS
from prompted import closed
from test_transcripts import ERRORS, TEXTS, TRANSCRIPTS

from gprochat_anyio import (
    GPROChatError,
    ReplyInterruptedError,
    Retry,
    SiteConnectionError,
)
from gprochat_anyio._wire.reply_decoder import TextDecoder
from gprochat_anyio.testing import Drop, MemorySite, Raw, live_site, scripted_site
from gprochat_anyio.transport._response_parser import ResponseParser

virtual = pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)
every_transcript = pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda t: t["name"])
every_end = pytest.mark.parametrize("end", [Drop(), Drop(reset=True)], ids=["FIN", "RST"])

ONCE = Retry(attempts=1)


def wire_of(transcript: dict[str, Any]) -> bytes:
    return b"".join(bytes.fromhex(read["hex"]) for read in transcript["response"])


def text_in(wire: bytes) -> str:
    """A model of what a 200 response that is cut gives: the whole characters of its chunks' data,
    without the words at its end that say that the model failed."""
    _, _, rest = wire.partition(b"\r\n\r\n")
    chunks = []
    while rest:
        line, found, rest = rest.partition(b"\r\n")
        if not found:
            break
        size = int(line, 16)
        chunks.append(rest[:size])
        rest = rest[size + 2 :]
    body = b"".join(chunks).removesuffix(b"Internal server error")
    return codecs.getincrementaldecoder("utf-8")().decode(body)


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


def cut_site(transcript: dict[str, Any], cuts: list[int], end: Drop, reads: int = 1) -> MemorySite:
    """A site whose n-th answer ends at the n-th cut, and comes in so many reads at the most."""
    wire = wire_of(transcript)
    size = -(-len(wire) // reads)
    return scripted_site(
        *[
            [*[Raw(wire[at : min(at + size, cut)]) for at in range(0, cut, size)], end]
            for cut in cuts
        ]
    )


@virtual
@every_end
@every_transcript
async def test_every_offset(transcript: dict[str, Any], end: Drop) -> None:
    head = wire_of(transcript).index(b"\r\n\r\n")
    for number, way in enumerate(WAYS[:3]):  # within the head, they take turns
        cuts = [cut for cut in offsets(transcript) if cut > head or cut % 3 == number]
        async with cut_site(transcript, cuts, end) as site:
            async with site.client(retry=ONCE) as client:
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
async def test_every_offset_to_a_slow_consumer(transcript: dict[str, Any], end: Drop) -> None:
    """Which reads once the end has come; what comes behind the error is that error."""
    cuts = with_text(transcript)
    async with cut_site(transcript, cuts, end, 12) as site:
        async with site.client(retry=ONCE) as client:
            for cut in cuts:
                kind, text = expected(transcript, cut)
                pieces: list[str] = []
                async with client.stream("hello") as chunks:
                    await anyio.sleep(1)  # all of it is there by now
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
async def test_every_offset_to_a_full_channel(transcript: dict[str, Any], end: Drop) -> None:
    cuts = with_text(transcript)
    async with cut_site(transcript, cuts, end, 12) as site:
        async with site.client(retry=ONCE) as client:
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
    transcript: dict[str, Any], end: Drop
) -> None:
    cuts = with_text(transcript)
    async with cut_site(transcript, cuts, end, 12) as site, site.client() as client:
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
    parser, decoder, text, steps = ResponseParser(), TextDecoder(), "", 0
    for start, end in pairwise(range(len(wire) + 1)):
        parser.feed(wire[start:end])
        text += "".join([decoder.feed(piece) for piece in parser.take()])
        if start % 37 == 0 or end > len(wire) - 100:
            assert text == text_in(wire[:end])
            steps += 1
        assert TEXTS["reply_1000_tokens"].startswith(text)
        assert parser.complete is (end == len(wire))
    assert steps > 600
    text += decoder.finish()
    assert (decoder.failure, text) == (None, TEXTS["reply_1000_tokens"])


@every_end
@pytest.mark.parametrize("slow", [False, True], ids=["fast", "slow"])
@pytest.mark.parametrize(
    "transcript",
    [t for t in TRANSCRIPTS if t["name"] in ("reply_utf8", "reply_1000_tokens")],
    ids=lambda t: t["name"],
)
async def test_over_sockets(transcript: dict[str, Any], end: Drop, *, slow: bool) -> None:
    """Linux keeps what came before a reset; elsewhere a reset may overtake it."""
    wire = wire_of(transcript)
    exact = not end.reset or sys.platform == "linux"
    for cut in range(wire.index(b"\r\n\r\n") + 8, len(wire), 7 if len(wire) < 2000 else 997):
        kind, text = expected(transcript, cut)
        with anyio.fail_after(20):
            async with live_site([Raw(wire[:cut]), end]) as site:
                async with site.client(retry=ONCE) as client:
                    pieces: list[str] = []
                    with pytest.raises(GPROChatError) as caught:
                        async with client.stream("hello") as chunks:
                            if slow:
                                await closed(site)
                            async for piece in chunks:
                                pieces.append(piece)  # noqa: PERF401
        got = "".join(pieces)
        assert_ours(caught.value, kind, got)
        assert got == text if exact else text.startswith(got)
