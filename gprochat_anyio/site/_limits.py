"""A bound on how many answers a model gives at once."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

from ._models import Model, ModelError, Turn


class AtMost:
    """A model that answers at most so many histories at once, and refuses those beyond.

    Refused as a rate limit is, so that clients ask again after a while.

    :param limit: at least 1
    """

    def __init__(self, model: Model, limit: int) -> None:
        if limit < 1:
            raise ValueError("max_at_once must be at least 1, or None for no bound")
        self._model = model
        self._limit = limit
        self._running = 0

    async def __call__(self, turns: tuple[Turn, ...]) -> AsyncGenerator[str]:
        if self._running >= self._limit:
            raise ModelError("The site is busy; ask again.", status=429, retry_after=1)
        self._running += 1
        try:
            async with AsyncExitStack() as stack:
                texts = aiter(self._model(turns))
                if (aclose := getattr(texts, "aclose", None)) is not None:
                    stack.push_async_callback(aclose)
                async for text in texts:
                    yield text
        finally:
            self._running -= 1
