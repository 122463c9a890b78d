"""Replies that are more than a script: as bytes, and without an end."""

from __future__ import annotations

from collections.abc import Iterator

from gprochat_anyio.testing import Raw, Say, Step
from gprochat_anyio.testing._steps import LAST_CHUNK, REPLY_HEAD


def reply(*texts: str | bytes) -> bytes:
    """A whole answer of the site, an HTTP chunk for each text."""
    return REPLY_HEAD + b"".join(Say(text).data for text in texts) + LAST_CHUNK


class Endless:
    """A reply whose data comes again and again, as long as the client takes it; which is not for
    long.

    :param start: what comes before it
    """

    def __init__(self, start: bytes, data: bytes, *, bound: int = 5_000_000) -> None:
        self.start = start
        self.data = data
        self.bound = bound
        self.taken = 0
        """How many bytes of the data were sent."""

    def __call__(self, _: object = None) -> Iterator[Step]:
        if self.start:
            yield Raw(self.start)
        for _ in range(self.bound // len(self.data)):
            self.taken += len(self.data)
            yield Raw(self.data)
        raise AssertionError("the client takes whatever is sent")
