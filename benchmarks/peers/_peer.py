"""The interface of a client that is measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import loops

Take = Callable[[str], None]
"""The consumer of a reply's text. A peer calls it with each piece, in the consuming task."""


class Peer(ABC):
    """One client library, used the way its own documentation shows for a streamed reply."""

    anyio_scope = False
    """Whether its users cancel by AnyIO's scopes rather than by their loop's own means."""

    streams = True
    """Whether it hands over text as it arrives, rather than all of it at the end."""

    @abstractmethod
    async def open(self, url: str, at_once: int) -> None:
        """Make the client; not measured.

        :param at_once: how many connections it may have
        """

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def reply(self, prompt: str, take: Take) -> None:
        """Ask once, and hand the text of the reply to `take`."""

    async def replies(self, prompt: str, takes: Sequence[Take]) -> None:
        """Ask once for each of `takes`, all at once."""

        async def reply(take: Take) -> None:
            await self.reply(prompt, take)

        await loops.together(reply, takes)
