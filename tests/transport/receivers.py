"""Receivers in place of an exchange, at the end of a connection."""

from __future__ import annotations

import anyio


class Listening:
    """A receiver that records its calls."""

    def __init__(self) -> None:
        self.told: list[bytes | str] = []
        self.error: Exception | None = None
        self._event = anyio.Event()

    def feed(self, data: bytes) -> None:
        self._tell(data)

    def lost(self, error: Exception | None) -> None:
        self.error = error
        self._tell("lost")

    def broken(self, error: BaseException) -> None:
        self._tell("broken")

    @property
    def data(self) -> bytes:
        return b"".join(what for what in self.told if isinstance(what, bytes))

    @property
    def over(self) -> bool:
        return self.told[-1:] in (["lost"], ["broken"])

    async def next(self) -> bytes | str:
        """Wait for the next call, and return it."""
        with anyio.fail_after(5):
            await self._event.wait()
        self._event = anyio.Event()
        return self.told[-1]

    async def until(self, data: bytes) -> None:
        """Wait until exactly this data has arrived."""
        while self.data != data:
            await self.next()

    async def until_over(self) -> None:
        while not self.over:
            await self.next()

    def _tell(self, what: bytes | str) -> None:
        self.told.append(what)
        self._event.set()
