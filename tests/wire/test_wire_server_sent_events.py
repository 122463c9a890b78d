"""Server-sent events, for any split of their bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.decoding import halves, single_bytes

from gprochat_anyio._wire import server_sent_events
from gprochat_anyio._wire.server_sent_events import Event, EventReader


def read(parts: Iterable[bytes], *, finish: bool = False) -> list[Event]:
    reader = EventReader()
    events = [event for part in parts for event in reader.feed(part)]
    return events + reader.finish() if finish else events


def model(stream: bytes) -> list[Event]:
    """Read a complete stream in the simplest way."""
    events: list[Event] = []
    kind, values = "message", list[bytes]()
    lines = re.split(rb"\r\n|\n|\r", stream.removeprefix(b"\xef\xbb\xbf"))
    for line in lines[:-1]:
        name, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if not line:
            if values:
                events.append((kind, b"\n".join(values)))
            kind, values = "message", []
        elif name == b"event":
            kind = value.decode(errors="replace") or "message"
        elif name in (b"data", b"error"):
            kind = "error" if name == b"error" else kind
            values.append(value)
    return events


STREAMS = {
    "one line each": (b"data: a\n\ndata: b\n\n", [("message", b"a"), ("message", b"b")]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", [("message", b"a"), ("message", b"b")]),
    "CR": (b"data: a\r\rdata: b\r\r", [("message", b"a"), ("message", b"b")]),
    "mixed line ends": (b"data: a\r\n\ndata: b\r\r\n", [("message", b"a"), ("message", b"b")]),
    "several lines": (b"data: a\ndata:\ndata:  b\n\n", [("message", b"a\n\n b")]),
    "no space, no colon": (b"data:a\n\ndata\n\n", [("message", b"a"), ("message", b"")]),
    "comments": (b": hi\n\n:\ndata: a\n: b\n\n", [("message", b"a")]),
    "byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [("message", b"a")]),
    "a later byte order mark": (b"\n\xef\xbb\xbfdata: a\n\n", []),
    "types": (
        b"event: error\ndata: a\n\ndata: b\nevent:ping\n\nevent:\ndata: c\n\n",
        [("error", b"a"), ("ping", b"b"), ("message", b"c")],
    ),
    "a type without data": (b"event: error\n\ndata: a\n\n", [("message", b"a")]),
    "a type that is not UTF-8": (b"event: \xff\ndata: a\n\n", [("\ufffd", b"a")]),
    "llama.cpp's error": (b'error: {"code":400}\n\n', [("error", b'{"code":400}')]),
    "fields to ignore": (b"id: 7\nretry: 5\nDATA: x\n data: y\ndata: a\n\n", [("message", b"a")]),
    "no line separators but these": (
        b"data: \x0b\x0c\x1c\x85\xe2\x80\xa8\n\n",
        [("message", b"\x0b\x0c\x1c\x85\xe2\x80\xa8")],
    ),
    "an unfinished event": (b"data: a\n\ndata: b\n", [("message", b"a")]),
    "nothing": (b"", []),
}


@pytest.mark.parametrize(("stream", "events"), STREAMS.values(), ids=STREAMS)
def test_any_split(stream: bytes, events: list[Event]) -> None:
    assert model(stream) == events
    assert read(single_bytes(stream)) == events
    for parts in halves(stream):
        assert read(parts) == events


@pytest.mark.parametrize("tail", [b"data: b", b"data: b\n", b"data: b\r", b"data: b\r\n"])
def test_the_last_event_needs_no_blank_line(tail: bytes) -> None:
    for parts in [*halves(b"data: a\r\n\r\n" + tail), single_bytes(b"data: a\n\n" + tail)]:
        assert read(parts, finish=True) == [("message", b"a"), ("message", b"b")]
    assert read([b"data: a\n\n", b": b"], finish=True) == [("message", b"a")]


PIECES = [b"data: ", b"data", b":", b" ", b"a", b"\r", b"\n", b"\r\n", b"\n\n", b"\xef\xbb\xbf"]
STREAM = st.lists(st.sampled_from([*PIECES, b"event: x", b"error: y", b"\n\ndata: ", b"id: 1"]))


@given(STREAM)
def test_streams_of_the_standard(pieces: list[bytes]) -> None:
    assert read(pieces) == model(b"".join(pieces))
    assert read(single_bytes(b"".join(pieces))) == model(b"".join(pieces))


class TestBounds:
    """Limits of 16 bytes, so that every split can be tried."""

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server_sent_events, "MAX_EVENT_SIZE", 16)

    @pytest.mark.parametrize(
        ("stream", "count", "too_large"),
        [
            (b"data: 0123456789\n\n" * 3, 3, False),
            (b"data: a\n\ndata: 0123456789a\n\ndata: b\n\n", 1, True),
            (b"data: a\n\ndata: 0123456789a", 1, True),
            (b"data: 0123456789\ndata:a\ndata:b\ndata:\n\ndata: b\n\n", 1 + 1, False),
            (b"data: 0123456789\ndata:a\ndata:bcd\n\ndata: b\n\n", 1 + 1, False),
            (b"data: 0123456789\ndata:a\ndata:bcde\n\ndata: b\n\n", 0, True),
            (b"data: a\n\n: 0123456789abcdef\n\ndata: b\n\n", 1, True),
            (b": 0123456789abcd\n" * 9 + b"data: a\n\n", 1, False),
        ],
    )
    def test_hold_for_any_split(self, stream: bytes, count: int, too_large: bool) -> None:
        for parts in [*halves(stream), single_bytes(stream)]:
            reader = EventReader()
            events = [event for part in parts for event in reader.feed(part)]
            assert (len(events), reader.too_large) == (count, too_large), parts
            if too_large:
                assert reader.feed(b"\n\ndata: c\n\n") == reader.finish() == []
