"""The prompts of a fan-out, pulled one by one."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from enum import Enum
from typing import Final, Literal

from gprochat_anyio._wire.messages import Prompt

Prompts = Iterable[Prompt] | AsyncIterable[Prompt]
"""Any number of prompts, endlessly many included."""


class _EndOfPrompts(Enum):
    token = 0


END: Final = _EndOfPrompts.token
"""What comes behind the last prompt."""


class PromptSource:
    """Pulls prompts out of an iterable or an async iterable, for one task.

    :raises ValueError: if it is no iterable of prompts
    """

    __slots__ = ("_iterator", "_prompts")

    def __init__(self, prompts: Prompts) -> None:
        if isinstance(prompts, str | bytes | Mapping):
            raise ValueError(f"prompts is one {type(prompts).__name__}; give a list of prompts")
        if not isinstance(prompts, Iterable | AsyncIterable):
            raise ValueError(
                "prompts must be an iterable or an async iterable of prompts, not "
                f"{type(prompts).__name__}"
            )
        self._prompts = prompts
        self._iterator: Iterator[Prompt] | AsyncIterator[Prompt] | None = None

    async def next(self) -> Prompt | Literal[_EndOfPrompts.token]:
        """The next prompt. It is no checkpoint unless the iterable is.

        :raises Exception: what the iterable raises
        """
        if self._iterator is None:
            prompts = self._prompts
            self._iterator = aiter(prompts) if isinstance(prompts, AsyncIterable) else iter(prompts)
        if isinstance(self._iterator, Iterator):
            return next(self._iterator, END)
        return await anext(self._iterator, END)

    async def aclose(self) -> None:
        """Close the generator, if it is one. What is no generator is left alone."""
        if isinstance(self._iterator, AsyncGenerator):
            await self._iterator.aclose()
        elif isinstance(self._iterator, Generator):
            self._iterator.close()
