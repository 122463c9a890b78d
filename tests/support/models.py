"""Models in this process, for `Client.of`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
from anyio.lowlevel import checkpoint

from gprochat_anyio.site import Turn


class Saying:
    """A model that yields given texts, and records its use.

    :param pause: Awaited before each text.
    :param clean_up: Awaited at the end, in a shielded scope.
    :param endless: True to start again after the last text.
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
        """The history of each request."""
        self.running = 0
        """Number of iterations that have started but are not closed."""
        self.most = 0
        """Maximum number of concurrent iterations."""
        self.said = 0
        """Number of characters yielded."""
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
    """Yield the last message in capitals, word by word."""
    for word in turns[-1].text.upper().split(" "):
        await checkpoint()
        yield word
