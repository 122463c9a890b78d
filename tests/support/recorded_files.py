"""Transcripts that a test has recorded."""

from __future__ import annotations

from pathlib import Path

from gprochat_anyio.testing import Transcript


def recorded(folder: Path) -> list[Transcript]:
    return [Transcript.load(path) for path in sorted(folder.glob("*.json"))]


def body_of(transcript: Transcript) -> bytes:
    return b"".join(read.data for read in transcript.response)
