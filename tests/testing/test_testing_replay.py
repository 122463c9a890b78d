"""Replaying recorded exchanges: matches, times, and invalid files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.loops import VIRTUAL_LOOPS, virtual
from support.retries import ONCE

from gprochat_anyio import (
    AuthenticationError,
    GPROChatError,
    RequestTimeoutError,
    SiteError,
    Timeouts,
)
from gprochat_anyio.testing import Transcript, record, replay, scripted_site

TRANSCRIPTS = Path(__file__).parent.parent / "transcripts"


async def test_matching_by_messages() -> None:
    async with replay(TRANSCRIPTS, match=True) as site, site.client(retry=ONCE) as client:
        assert (await client.ask("slow-start 1")).text == "slow-start 1"
        assert (await client.ask("stall 1.5")).text == "before after"
        with pytest.raises(SiteError, match="no recording"):
            await client.ask("something else")


@virtual
async def test_timing_as_recorded() -> None:
    async with replay(TRANSCRIPTS / "reply_stall.json", timing=True) as site:
        async with site.client() as client, client.stream("Hi") as chunks:
            assert chunks.timing.first_chunk == pytest.approx(0.0043)
            await chunks.read()
            assert chunks.timing.total == pytest.approx(1.5072)


@pytest.mark.parametrize("pieces", ["recorded", "whole", "bytes"])
@pytest.mark.parametrize("path", sorted(TRANSCRIPTS.glob("*.json")), ids=lambda p: p.stem)
@pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS[1:], indirect=True)
async def test_every_transcript(path: Path, pieces: Any) -> None:
    async with replay(path, pieces=pieces) as site, site.client(retry=ONCE) as client:
        if path.stem.startswith("reply_") and path.stem != "reply_empty":
            assert (await client.ask("Hi")).text
        else:
            with pytest.raises(GPROChatError) as caught:
                await client.ask("Hi")
            assert isinstance(caught.value, AuthenticationError) == path.stem.startswith(
                "error_bad"
            )


def test_a_written_transcript_is_read_back(tmp_path: Path) -> None:
    for path in TRANSCRIPTS.glob("*.json"):
        Transcript.load(path).dump(tmp_path / "copy.json")
        assert json.loads((tmp_path / "copy.json").read_bytes()) == json.loads(path.read_bytes())


async def test_an_empty_recording() -> None:
    for end, raises in (("closed", GPROChatError), ("complete", RequestTimeoutError)):
        transcript = {"name": "", "note": "", "secret_key": "", "request": {}, "response": []}
        path = anyio.Path(await anyio.mkdtemp()) / "empty.json"
        await path.write_text(json.dumps(transcript | {"end": end}))
        async with replay(str(path), pieces="whole") as site:
            async with site.client(retry=ONCE, timeouts=Timeouts(first_chunk=0.01)) as client:
                with pytest.raises(raises):
                    await client.ask("Hi")
        await path.unlink()
        await path.parent.rmdir()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"name": 1}', '{"response": 7}', '{"response": [{"t": "x", "hex": ""}]}'],
)
def test_invalid_transcript_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json is not the transcript"):
        replay(tmp_path)


def test_an_invalid_end(tmp_path: Path) -> None:
    found = json.loads((TRANSCRIPTS / "reply_empty.json").read_bytes())
    (tmp_path / "a.json").write_text(json.dumps(found | {"end": "perhaps"}))
    with pytest.raises(ValueError, match="the end of a transcript"):
        replay(tmp_path)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda _: replay(), "at least"),
        (replay, "contains no transcripts"),
        (lambda path: replay(path, pieces="halves"), "pieces must be"),  # type: ignore[arg-type]
    ],
)
def test_invalid_recordings(make: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        make(tmp_path)
    with pytest.raises(OSError):
        replay(tmp_path / "missing.json")


async def test_given_file_names(tmp_path: Path) -> None:
    async with scripted_site(lambda request: request.prompt) as site, site.client() as client:
        async with record(client, tmp_path):
            await client.ask("one")
        (tmp_path / "001.json").rename(tmp_path / "999-hello.json")
        async with record(client, tmp_path):
            await client.ask("two")
    (tmp_path / "notes.json").write_bytes((tmp_path / "999-hello.json").read_bytes())
    async with replay(tmp_path) as site, site.client() as client:
        assert [(await client.ask("x")).text for _ in range(3)] == ["one", "two", "one"]
    assert (tmp_path / "1000.json").exists()
