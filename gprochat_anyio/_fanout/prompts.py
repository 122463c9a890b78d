"""The source of a fan-out's prompts."""

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
"""The prompts of a fan-out, possibly infinitely many."""


class _EndOfPrompts(Enum):
    token = 0


END: Final = _EndOfPrompts.token
"""The end of the prompts."""


class PromptSource:
    """Source that pulls prompts from an iterable or an async iterable, for one task.

    :raises ValueError: If it is not an iterable of prompts.
    """

    __slots__ = ("_iterator", "_prompts")

    def __init__(self, prompts: Prompts) -> None:
        if isinstance(prompts, str | bytes | Mapping):
            raise ValueError(
                f"prompts is a single {type(prompts).__name__}; give a list of prompts"
            )
        if not isinstance(prompts, Iterable | AsyncIterable):
            raise ValueError(
                "prompts must be an iterable or an async iterable of prompts, not "
                f"{type(prompts).__name__}"
            )
        self._prompts = prompts
        self._iterator: Iterator[Prompt] | AsyncIterator[Prompt] | None = None

    async def next(self) -> Prompt | Literal[_EndOfPrompts.token]:
        """Return the next prompt, or `END`. This is a checkpoint only if the iterable is one.

        :raises Exception: Any exception of the iterable.
        """
        if self._iterator is None:
            prompts = self._prompts
            self._iterator = aiter(prompts) if isinstance(prompts, AsyncIterable) else iter(prompts)
        if isinstance(self._iterator, Iterator):
            return next(self._iterator, END)
        return await anext(self._iterator, END)

    async def aclose(self) -> None:
        """Close the iterable if it is a generator."""
        if isinstance(self._iterator, AsyncGenerator):
            await self._iterator.aclose()
        elif isinstance(self._iterator, Generator):
            self._iterator.close()
