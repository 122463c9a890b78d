"""Consumers of text, which a peer calls with each piece of a reply as it arrives."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

STAMP = 16
"""Length of a stamped chunk. It is the time at which the server sent it, in hexadecimal."""

_PERCENTILE = 0.99


class Counter:
    """Counter of the characters of any number of replies."""

    def __init__(self) -> None:
        self.characters = 0

    def take(self, text: str) -> None:
        self.characters += len(text)


class FirstText(Counter):
    """Timer of the first text of one reply."""

    def __init__(self) -> None:
        super().__init__()
        self._start = time.perf_counter()
        self.seconds = 0.0

    def take(self, text: str) -> None:
        if text and not self.characters:
            self.seconds = time.perf_counter() - self._start
        super().take(text)


class Recorder:
    """Recorder of one reply's pieces and their times.

    It costs 0.1 µs per piece, with any peer. The lateness is computed after the measurement.
    """

    __slots__ = ("_pieces", "_times")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._times: list[int] = []

    @property
    def characters(self) -> int:
        return sum(map(len, self._pieces))

    def take(self, text: str) -> None:
        self._pieces.append(text)
        self._times.append(time.monotonic_ns())

    def lateness(self) -> Iterator[int]:
        """Yield each chunk's lateness: the nanoseconds from its stamp until it was complete."""
        text = "".join(self._pieces)
        start = given = 0
        for piece, taken in zip(self._pieces, self._times, strict=True):
            given += len(piece)
            while start + STAMP <= given:
                yield taken - int(text[start : start + STAMP], 16)
                start += STAMP


def p99_lateness(recorders: Iterable[Recorder]) -> float:
    """Return the 99th percentile of the chunks' lateness, in seconds."""
    late = sorted(nanoseconds for recorder in recorders for nanoseconds in recorder.lateness())
    return late[int(len(late) * _PERCENTILE)] / 1e9
