"""Replay of recorded exchanges, by a site in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from ._scripted_site import MemorySite, Reply, scripted_site
from ._steps import Drop, Hang, Hold, Pause, Raw, Refuse, Step
from ._transcripts import HISTORIES, Transcript, transcripts_in

Pieces: TypeAlias = Literal["recorded", "whole", "bytes"]
"""The pieces of the response: as recorded, all at once, or byte by byte."""


def replay(
    *paths: str | os.PathLike[str],
    pieces: Pieces = "recorded",
    timing: bool = False,
    match: bool = False,
    **settings: Any,
) -> MemorySite:
    """Return an in-memory site that replays recordings: `async with replay("recordings") as site`.

    Each request gets the next recording, regardless of its prompt and its signature. The last
    recording is repeated.

    :param paths: Files, or folders of files in the order of their numbers and names; see `record`.
    :param pieces: The pieces of the response. A recording that ends with an error also does so
        here.
    :param timing: Replay the recorded times, by the event loop's clock. "whole" uses the time of
        the last piece, and "bytes" the time of the read that had the byte.
    :param match: Give each request the recording with the same messages instead. Unknown messages
        get an error with status 404.
    :param settings: Other arguments of `scripted_site`.
    :raises OSError: If a file cannot be read.
    :raises ValueError: If a file is not a transcript, or a folder contains none.
    """
    if pieces not in ("recorded", "whole", "bytes"):
        raise ValueError('pieces must be "recorded", "whole" or "bytes"')
    found = list(transcripts_in(paths))
    if not found:
        raise ValueError("replay requires the path of at least one recording")
    scripts = [_script(transcript, pieces, timing=timing) for transcript in found]
    replies: list[Reply] = list(scripts)
    if match:
        by_messages = {_key(t.request): script for t, script in zip(found, scripts, strict=True)}
        unknown = [Refuse(404, "no recording has these messages; record the exchange")]
        replies = [lambda request: by_messages.get(_key(request.body), unknown)]
    return scripted_site(*replies, strict=False, **settings)


def _key(request: Mapping[str, Any]) -> str:
    return repr([request.get(name) for name in sorted(HISTORIES)])


def _script(transcript: Transcript, pieces: Pieces, *, timing: bool) -> list[Step | Hold]:
    reads = [(read.t, read.data) for read in transcript.response if read.data]
    if pieces == "whole" and reads:
        reads = [(reads[-1][0], b"".join(data for _, data in reads))]
    elif pieces == "bytes":
        reads = [(t, data[n : n + 1]) for t, data in reads for n in range(len(data))]
    steps: list[Step | Hold] = []
    now = 0.0
    for t, data in reads:
        if timing and t > now:
            steps.append(Pause(t - now))
            now = t
        steps.append(Raw(data))
    match transcript.end:
        case "closed":
            steps.append(Drop())
        case "reset":
            steps.append(Drop(reset=True))
        case "left":
            steps.append(Hang())
        case _:
            steps.append(Raw(b""))  # suppresses the site's own response
    return steps
