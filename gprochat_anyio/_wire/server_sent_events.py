"""Encoding and parsing of server-sent events (HTML standard, section 9.2.6).

Two deviations accommodate chat APIs. Several servers omit the blank line after their last event, so
`finish` returns an unfinished event instead of dropping it. llama.cpp reports a failure in a field
of its own, `error: {...}`, which is parsed as the data of an event of the type "error".

The fields `id` and `retry` are ignored, because the client does not reconnect.
"""

from __future__ import annotations

MAX_EVENT_SIZE = 1024 * 1024
"""Maximum size of a line, and of an event's data, in bytes. Chat APIs send a few tokens in each."""

MESSAGE = "message"
"""The default type of an event."""

ERROR = "error"

Event = tuple[str, bytes]
"""An event's type, and its data: the lines joined by line feeds."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def encode_event(data: bytes) -> bytes:
    """Encode an event with one line of data."""
    return b"data: " + data + b"\n\n"


class EventReader:
    """Incremental parser of one event stream."""

    __slots__ = (
        "_after_carriage_return",
        "_at_start",
        "_kind",
        "_rest",
        "_size",
        "_values",
        "too_large",
    )

    def __init__(self) -> None:
        self.too_large = False
        """True after an event that exceeds `MAX_EVENT_SIZE`. The rest of the stream is ignored."""
        self._at_start = True
        self._after_carriage_return = False
        self._rest = bytearray()  # the beginning of a line
        self._kind = MESSAGE
        self._values: list[bytes] = []
        self._size = 0  # of several values; a single value is as limited as its line

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that these bytes complete."""
        events: list[Event] = []
        values = self._values
        for line in self._lines(data):
            if line[:6] == b"data: " and not values:  # slicing is faster than `startswith`
                values.append(line[6:])
            elif line:
                self._take_field(line)
                if self._size > MAX_EVENT_SIZE:
                    self.too_large = True
                    break
            else:
                if values:
                    self._size = 0
                    events.append((self._kind, b"\n".join(values)))
                    values.clear()
                self._kind = MESSAGE
        return events

    def finish(self) -> list[Event]:
        """Return the last event of the stream, if its blank line is missing."""
        return self.feed(b"\n\n")

    def _lines(self, data: bytes) -> list[bytes]:
        """Return the lines that these bytes complete, without their ends."""
        if self._after_carriage_return and data:
            self._after_carriage_return = False
            data = data.removeprefix(b"\n")
        if self.too_large or not data:
            return []
        rest = self._rest
        if rest:
            rest += data
            if b"\n" not in data and b"\r" not in data:
                self.too_large = len(rest) > MAX_EVENT_SIZE
                return []
            data = bytes(rest)
            rest.clear()
        if b"\r" in data:
            lines = data.splitlines()
            if data.endswith(b"\r"):
                self._after_carriage_return = True
            elif not data.endswith(b"\n"):
                rest += lines.pop()
        else:
            lines = data.split(b"\n")  # twice as fast as `splitlines`
            rest += lines.pop()
        if self._at_start and lines:
            self._at_start = False
            lines[0] = lines[0].removeprefix(_BYTE_ORDER_MARK)
        if len(data) > MAX_EVENT_SIZE:
            lines = self._within_bounds(lines)
        return lines

    def _within_bounds(self, lines: list[bytes]) -> list[bytes]:
        """Return the lines before the first one that is too large."""
        for number, line in enumerate(lines):
            if len(line) > MAX_EVENT_SIZE:
                self.too_large = True
                return lines[:number]
        self.too_large = len(self._rest) > MAX_EVENT_SIZE
        return lines

    def _take_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._kind = value.decode(errors="replace") or MESSAGE
        elif name == b"error":
            self._kind = ERROR
            self._add(value)
        elif name == b"data":
            self._add(value)

    def _add(self, value: bytes) -> None:
        """Append a line to the event's data."""
        if self._values:
            self._size = 1 + len(value) + (self._size or len(self._values[0]))
        self._values.append(value)
