"""Every recorded response, truncated at every byte, gives its text up to there and one error, never
a success.

The connection ends with FIN and with RST in turn; with `--full`, with both at each offset. The
consumer keeps up, or reads only after the end. A model API's reply is complete with its finish
reason: truncated after it, it succeeds.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import anyio
import pytest
from support.apis import GPROCHAT
from support.blocked import all_tasks_blocked
from support.faults import WAYS, receive_by
from support.loops import virtual
from support.prompted import closed
from support.recordings import RECORDINGS, SITE_RECORDINGS, TEXTS, Recording
from support.retries import ONCE

from gprochat_anyio._wire.reply_decoder import TextDecoder
from gprochat_anyio.testing import Drop, MemorySite, Raw, live_site, scripted_site
from gprochat_anyio.transport._response_parser import ResponseParser

pytestmark = pytest.mark.slow

every_recording = pytest.mark.parametrize("recording", RECORDINGS, ids=str)
every_end = pytest.mark.parametrize("end", [Drop(), Drop(reset=True)], ids=["FIN", "RST"])


def offsets(recording: Recording) -> list[int]:
    """Return all offsets; for the reply with a thousand equal chunks, those in the first and
    last."""
    every = range(len(recording.wire))
    return [*every] if len(every) < 5000 else [*every[:240], *every[-70:]]


@pytest.fixture
def turn(anyio_backend_name: str, end: Drop, *, full: bool) -> slice:
    """The slice of offsets for an event loop and an end: every fourth, or all with `--full`."""
    first = 2 * (anyio_backend_name == "trio") + end.reset
    return slice(None) if full else slice(first, None, 4)


def cut_site(recording: Recording, cuts: list[int], end: Drop, reads: int = 1) -> MemorySite:
    """Return a site that truncates its n-th response at the n-th offset."""
    wire = recording.wire
    size = -(-len(wire) // reads)
    return scripted_site(
        *[
            [*[Raw(wire[at : min(at + size, cut)]) for at in range(0, cut, size)], end]
            for cut in cuts
        ]
    )


@virtual
@every_end
@every_recording
async def test_every_offset(recording: Recording, end: Drop, turn: slice, *, full: bool) -> None:
    """The ways to receive alternate; with `--full`, only in heads and in model APIs."""
    turns = len(recording.wire)
    if full and recording.api is GPROCHAT:
        turns = recording.start - 4
    for number, way in enumerate(WAYS[:3]):
        cuts = [cut for cut in offsets(recording)[turn] if cut > turns or cut % 3 == number]
        async with cut_site(recording, cuts, end) as site:
            async with recording.api.client(site.url, retry=ONCE) as client:
                for cut in cuts:
                    pieces: list[str] = []
                    with recording.cut(cut).by(None if way == "ask" else pieces):
                        text = await receive_by(way, client, into=pieces)
                        assert text == recording.whole.text
                assert len(site.requests) == len(cuts)


def with_text(recording: Recording) -> list[int]:
    """Return the offsets after the first text; for model APIs with their long events, every
    seventh."""
    found = [cut for cut in offsets(recording) if recording.cut(cut).text]
    return found if recording.api is GPROCHAT else found[::7]


REPLIES = pytest.mark.parametrize("recording", [r for r in RECORDINGS if with_text(r)], ids=str)


@virtual
@every_end
@REPLIES
async def test_every_offset_to_a_slow_consumer(
    recording: Recording, end: Drop, turn: slice
) -> None:
    """It reads after the end. Reading on after the error raises it again."""
    cuts = with_text(recording)[turn]
    async with cut_site(recording, cuts, end, 12) as site:
        async with recording.api.client(site.url, retry=ONCE) as client:
            for cut in cuts:
                expected = recording.cut(cut)
                pieces: list[str] = []
                async with client.stream("hello") as chunks:
                    await anyio.sleep(1)  # everything has arrived by then
                    with expected.by(pieces) as caught:
                        async for piece in chunks:
                            pieces.append(piece)  # noqa: PERF401 - until the error
                    with pytest.raises(expected.error or anyio.EndOfStream) as again:
                        await chunks.receive()
                assert not caught or again.value is caught[0]
                assert chunks.text == expected.text


@virtual
@every_end
@REPLIES
async def test_every_offset_to_a_full_channel(recording: Recording, end: Drop, turn: slice) -> None:
    cuts = with_text(recording)[turn]
    async with cut_site(recording, cuts, end, 12) as site:
        async with recording.api.client(site.url, retry=ONCE) as client:
            for cut in cuts:
                send, receive = anyio.create_memory_object_stream[str](0)
                pieces: list[str] = []

                async def ask(send: Any = send, cut: int = cut) -> None:
                    with recording.cut(cut).by(None):
                        await client.stream_to("hello", send)

                async with anyio.create_task_group() as tasks, receive:
                    tasks.start_soon(ask)
                    await all_tasks_blocked()
                    pieces += [piece async for piece in receive]
                assert "".join(pieces) == recording.cut(cut).text


@virtual
@every_end
@pytest.mark.parametrize("recording", [r for r in SITE_RECORDINGS if with_text(r)], ids=str)
async def test_every_offset_to_the_providers_consumer(
    recording: Recording, end: Drop, turn: slice
) -> None:
    cuts = with_text(recording)[turn]
    async with cut_site(recording, cuts, end, 12) as site, site.client() as client:
        for cut in cuts:
            pieces: list[str] = []
            with recording.cut(cut).by(pieces):
                await receive_by("provider", client, into=pieces)


def test_every_offset_of_a_thousand_chunks() -> None:
    """The offsets that the other tests skip, byte by byte and without an event loop."""
    (recording,) = (r for r in SITE_RECORDINGS if r.name == "reply_1000_tokens")
    wire = recording.wire
    parser, decoder, text, steps = ResponseParser(), TextDecoder(), "", 0
    for start, end in pairwise(range(len(wire) + 1)):
        parser.feed(wire[start:end])
        text += "".join([decoder.feed(piece) for piece in parser.take()])
        if recording.start <= end < len(wire) and (start % 37 == 0 or end > len(wire) - 100):
            assert text == recording.cut(end).text
            steps += 1
        assert TEXTS["reply_1000_tokens"].startswith(text)
        assert parser.complete is (end == len(wire))
    assert steps > 600
    text += decoder.finish()
    assert (decoder.failure, text) == (None, TEXTS["reply_1000_tokens"])


OVER_SOCKETS = ["reply_utf8", "reply_1000_tokens", "Ollama, at the limit of tokens", "a reply"]


@every_end
@pytest.mark.parametrize("slow", [False, True], ids=["fast", "slow"])
@pytest.mark.parametrize("recording", [r for r in RECORDINGS if r.name in OVER_SOCKETS], ids=str)
async def test_over_sockets(recording: Recording, end: Drop, *, slow: bool) -> None:
    """Linux keeps data that arrived before a reset; elsewhere the reset may discard it."""
    wire = recording.wire
    exact = not end.reset or sys.platform == "linux"
    step = 997 if len(wire) > 5000 else 7 if recording.api is GPROCHAT else 23
    cuts = [cut for cut in range(recording.start + 4, len(wire), step) if recording.cut(cut).text]
    scripts = [[Raw(wire[:cut]), end] for cut in cuts]
    with anyio.fail_after(20):
        async with live_site(*scripts) as site:
            async with recording.api.client(site.url, retry=ONCE) as client:
                for cut in cuts:
                    expected, pieces = recording.cut(cut), list[str]()
                    with expected.by(pieces, exact=exact):
                        async with client.stream("hello") as chunks:
                            if slow:
                                await closed(site)
                            async for piece in chunks:
                                pieces.append(piece)
