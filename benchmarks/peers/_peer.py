"""What a client has to offer to be measured."""

from __future__ import annotations

from abc import ABC, abstractmethod

import loops


class Peer(ABC):
    """One client library, used the way its own documentation shows for a streamed reply."""

    anyio_scope = False
    """Whether its users cancel by AnyIO's scopes rather than by their loop's own means."""

    @abstractmethod
    async def open(self, url: str, at_once: int) -> None:
        """Make the client; not measured.

        :param at_once: how many connections it may have
        """

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def reply(self, prompt: str) -> int:
        """Ask, take each piece of text as it comes, and return the number of characters."""

    @abstractmethod
    async def first_text(self, prompt: str) -> float:
        """Ask, and return the seconds until the first text; the rest is read as well."""

    async def replies(self, prompts: list[str]) -> int:
        """All of them at once; returns the number of characters."""
        return await loops.together(self.reply, prompts)
