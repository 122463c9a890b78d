"""A bound on how many answers a model gives at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Self

from gprochat_anyio._wire.model_api import Model, ModelError, Turn


class AtMost:
    """A model that answers at most so many histories at once, and refuses those beyond.

    Refused as a rate limit is, so that clients ask again after a while. An answer counts until it
    ends or is closed.

    :param limit: at least 1
    """

    def __init__(self, model: Model, limit: int) -> None:
        if limit < 1:
            raise ValueError("max_at_once must be at least 1, or None for no bound")
        self._model = model
        self._limit = limit
        self._running: set[_Counted] = set()

    def __call__(self, turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        if len(self._running) >= self._limit:
            raise ModelError("The site is busy; ask again.", status=429, retry_after=1)
        texts = _Counted(aiter(self._model(turns)), self._running)
        self._running.add(texts)
        return texts


class _Counted(AsyncIterator[str]):
    """The texts of an answer. Not a generator: that would close them where it is cancelled."""

    def __init__(self, texts: AsyncIterator[str], running: set[_Counted]) -> None:
        self._texts = texts
        self._running = running

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        try:
            return await anext(self._texts)
        except BaseException:
            self._running.discard(self)
            raise

    async def aclose(self) -> None:
        try:
            if (aclose := getattr(self._texts, "aclose", None)) is not None:
                await aclose()
        finally:
            self._running.discard(self)
