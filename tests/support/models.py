"""Models in this process, for `Client.of`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
from anyio.lowlevel import checkpoint

from gprochat_anyio.site import Turn


class Saying:
    """A model that says its texts again and again, and knows what is going on.

    :param pause: awaited before each text
    :param clean_up: awaited in the end, in a shielded scope
    :param endless: True to begin anew after the last text
    """

    name = "saying"

    def __init__(
        self,
        *texts: str,
        pause: Callable[[], Awaitable[object]] = checkpoint,
        clean_up: Callable[[], Awaitable[object]] = checkpoint,
        endless: bool = False,
    ) -> None:
        self.histories: list[tuple[Turn, ...]] = []
        """Each that it was given."""
        self.running = 0
        """Iterations that have begun, and are not closed."""
        self.most = 0
        """The most that there were at a time."""
        self.said = 0
        """Characters."""
        self._texts = texts
        self._pause = pause
        self._clean_up = clean_up
        self._endless = endless

    async def __call__(self, turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        self.histories.append(turns)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            while True:
                for text in self._texts:
                    await self._pause()
                    self.said += len(text)
                    yield text
                if not self._endless:
                    break
        finally:
            with anyio.CancelScope(shield=True):
                await self._clean_up()
            self.running -= 1


async def shout(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
    """Say the last message in capitals, word by word."""
    for word in turns[-1].text.upper().split(" "):
        await checkpoint()
        yield word
