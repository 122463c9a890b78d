"""The interface of a measured client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import loops

Take = Callable[[str], None]
"""The consumer of a reply's text. A peer calls it with each piece, in the consuming task."""


class Peer(ABC):
    """Client library, used for streaming as its own documentation shows."""

    anyio_scope = False
    """True if users cancel it with AnyIO's scopes, not natively."""

    streams = True
    """True if it hands over text as it arrives, not at the end."""

    @abstractmethod
    async def open(self, url: str, at_once: int) -> None:
        """Create the client. This is not measured.

        :param at_once: Maximum number of connections.
        """

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def reply(self, prompt: str, take: Take) -> None:
        """Ask once, and pass the reply's text to `take`."""

    async def replies(self, prompt: str, takes: Sequence[Take]) -> None:
        """Ask once for each of `takes`, concurrently."""

        async def reply(take: Take) -> None:
            await self.reply(prompt, take)

        await loops.together(reply, takes)
