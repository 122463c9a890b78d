"""Recorded exchanges as a site in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from ._scripted_site import MemorySite, Reply, scripted_site
from ._steps import Drop, Hang, Hold, Pause, Raw, Refuse, Step
from ._transcripts import HISTORIES, Transcript, transcripts_in

Pieces: TypeAlias = Literal["recorded", "whole", "bytes"]
"""As they were read when recorded, all at once, or byte by byte."""


def replay(
    *paths: str | os.PathLike[str],
    pieces: Pieces = "recorded",
    timing: bool = False,
    match: bool = False,
    **settings: Any,
) -> MemorySite:
    """A site in memory that answers as recorded: `async with replay("recordings") as site`.

    Each request gets the next recording, the last one again and again, whatever it asks; what it
    is signed with does not matter.

    :param paths: files, or folders of them in the order of their numbers and names; see `record`
    :param pieces: how the bytes come; where a recording ends broken, so does this, in all three
    :param timing: whether they come when they did, by the event loop's clock; whole means at the
        time of the last, and bytes come at the time of their read
    :param match: give each request the recording of the same messages instead, and to one that was
        never recorded an error 404
    :param settings: further ones of `scripted_site`
    :raises OSError: for a file that can not be read
    :raises ValueError: for a file that is no transcript, or a folder without any
    """
    if pieces not in ("recorded", "whole", "bytes"):
        raise ValueError('pieces is "recorded", "whole" or "bytes"')
    found = list(transcripts_in(paths))
    if not found:
        raise ValueError("replay takes the path of a recording at least")
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
            steps.append(Raw(b""))  # nothing of the site's own, even if nothing was recorded
    return steps
