"""The token bucket that retries, failovers and hedges of a fleet share.

Each of them takes a token, and each answer gives one. So a fleet that fails is not flooded, and a
fleet that answers can move every failed prompt: a request that finds no token waits for the answer
to another one, as long as any is on its way.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import anyio

_RESERVE: Final = 10
"""Tokens at the start: for prompts that fail before any has been answered."""

_MOST: Final = 30
"""Tokens at the most: requests beyond one for each prompt that a fleet gets as it goes down."""


class _Claim:
    """A request that waits for a token.

    :param latest: the latest request on its way: those after it are not waited for
    """

    __slots__ = ("decided", "latest", "number")

    def __init__(self, latest: int) -> None:
        self.decided = anyio.Event()
        self.latest = latest
        self.number = 0
        """The number of the request, once it has a token."""


class RetryBudget:
    """Counts tokens, and the requests on their way to a first text, which have a number each."""

    __slots__ = ("_latest", "_on_way", "_renewed", "_waiting", "tokens")

    def __init__(self) -> None:
        self.tokens = _RESERVE
        self._latest = 0
        self._renewed = 0  # the latest request as the last token was given
        self._on_way: dict[int, None] = {}  # in their order
        self._waiting: deque[_Claim] = deque()

    def begin(self) -> int:
        """Return the number of a request that begins and takes no token."""
        self._latest = number = self._latest + 1
        self._on_way[number] = None
        return number

    def succeed(self, number: int) -> None:
        """Count a request that was answered. It gives a token."""
        if self._waiting:
            self._give()
            self.end(number)
        else:
            del self._on_way[number]
            self._renewed = self._latest
            if self.tokens < _MOST:
                self.tokens += 1

    def end(self, number: int) -> None:
        """Count a request that ended in another way."""
        del self._on_way[number]
        if self._waiting:
            oldest = next(iter(self._on_way), None)
            while self._waiting and self._is_hopeless(self._waiting[0], oldest):
                self._waiting.popleft().decided.set()

    def take_now(self) -> int:
        """Take a token for a request that begins, and return its number; 0 if there is none."""
        if not self.tokens:
            return 0
        self.tokens -= 1
        return self.begin()

    async def take(self, ends: float) -> int:
        """Take a token; wait for it while a request that is on its way now may give one.

        Each token that is given extends the wait to the requests on their way at that moment. In a
        fleet that is down, nothing extends it, however many new prompts there are.

        :param ends: the latest time, by the event loop's clock
        :return: The number of the request, or 0 if there is no token in time. Cancelled, it takes
            none.
        """
        if self.tokens or not self._on_way:
            return self.take_now()
        waiter = _Claim(self._latest)
        self._waiting.append(waiter)
        try:
            with anyio.CancelScope(deadline=ends):
                await waiter.decided.wait()
        except BaseException:
            if waiter.number:
                self._give()
                self.end(waiter.number)
            raise
        finally:
            if not waiter.decided.is_set():
                self._waiting.remove(waiter)
        return waiter.number

    def _give(self) -> None:
        self._renewed = self._latest
        if self._waiting:
            waiter = self._waiting.popleft()
            waiter.number = self.begin()  # from now on, so that those behind it wait for its answer
            self._renewed = self._latest
            waiter.decided.set()
        else:
            self.tokens = min(self.tokens + 1, _MOST)

    def _is_hopeless(self, waiter: _Claim, oldest: int | None) -> bool:
        return oldest is None or oldest > max(waiter.latest, self._renewed)
