"""A model with a limit on concurrent replies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Self

from gprochat_anyio._wire.model_api import Model, ModelError, Turn


class LimitedModel:
    """A model that refuses histories beyond a limit on concurrent replies.

    The refusal is a rate limit, so that clients retry later. A reply counts until it ends or is
    closed.

    :param limit: Maximum number of concurrent replies, at least 1.
    :raises ValueError: If the limit is below 1.
    """

    def __init__(self, model: Model, limit: int) -> None:
        if limit < 1:
            raise ValueError("max_at_once must be at least 1, or None for no limit")
        self._model = model
        self._limit = limit
        self._running: set[_RunningReply] = set()

    def __call__(self, turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        if len(self._running) >= self._limit:
            raise ModelError("The site is busy; try again later.", status=429, retry_after=1)
        texts = _RunningReply(aiter(self._model(turns)), self._running)
        self._running.add(texts)
        return texts


class _RunningReply(AsyncIterator[str]):
    """The texts of a running reply.

    A generator would close them when it is cancelled, instead of leaving that to its caller.
    """

    def __init__(self, texts: AsyncIterator[str], running: set[_RunningReply]) -> None:
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
