"""Replies beyond scripts: bytes, and endless data."""

from __future__ import annotations

from collections.abc import Iterator

from gprochat_anyio.testing import Raw, Say, Step

from .response_bytes import LAST_CHUNK, REPLY_HEAD


def reply(*texts: str | bytes) -> bytes:
    """Return a complete response of the site, with one HTTP chunk per text."""
    return REPLY_HEAD + b"".join(Say(text).data for text in texts) + LAST_CHUNK


class Endless:
    """A reply that repeats its data as long as the client reads, up to a limit.

    :param start: The data at the beginning.
    """

    def __init__(self, start: bytes, data: bytes, *, bound: int = 5_000_000) -> None:
        self.start = start
        self.data = data
        self.bound = bound
        self.taken = 0
        """Number of bytes of the repeated data that were sent."""

    def __call__(self, _: object = None) -> Iterator[Step]:
        if self.start:
            yield Raw(self.start)
        for _ in range(self.bound // len(self.data)):
            self.taken += len(self.data)
            yield Raw(self.data)
        raise AssertionError("the client reads without a limit")
