"""The token bucket shared by a fleet's retries, failovers and hedges.

Each of them takes a token, and each successful request returns one. A failing fleet is therefore
not flooded, and a working fleet can move every failed prompt: a request without a token waits while
running requests may return one.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import anyio

_RESERVE: Final = 10
"""Initial number of tokens, for prompts that fail before any request has succeeded."""

_MOST: Final = 30
"""Maximum number of tokens, and so of additional requests to a fleet that starts to fail."""


class _Claim:
    """A request that waits for a token.

    :param latest: The number of the latest running request. It does not wait for later ones.
    """

    __slots__ = ("decided", "latest", "number")

    def __init__(self, latest: int) -> None:
        self.decided = anyio.Event()
        self.latest = latest
        self.number = 0
        """The request's number, once it has a token."""


class RetryBudget:
    """Token bucket, and the running requests by their numbers."""

    __slots__ = ("_latest", "_on_way", "_renewed", "_waiting", "tokens")

    def __init__(self) -> None:
        self.tokens = _RESERVE
        self._latest = 0
        self._renewed = 0  # number of the latest request when a token was last returned
        self._on_way: dict[int, None] = {}  # the running requests, in order
        self._waiting: deque[_Claim] = deque()

    def begin(self) -> int:
        """Start a request without a token, and return its number."""
        self._latest = number = self._latest + 1
        self._on_way[number] = None
        return number

    def succeed(self, number: int) -> None:
        """Record a successful request, which returns a token."""
        if self._waiting:
            self._give()
            self.end(number)
        else:
            del self._on_way[number]
            self._renewed = self._latest
            if self.tokens < _MOST:
                self.tokens += 1

    def end(self, number: int) -> None:
        """Record a request that ended without success."""
        del self._on_way[number]
        if self._waiting:
            oldest = next(iter(self._on_way), None)
            while self._waiting and self._is_hopeless(self._waiting[0], oldest):
                self._waiting.popleft().decided.set()

    def take_now(self) -> int:
        """Take a token for a new request, and return the request's number. 0 if there is no
        token."""
        if not self.tokens:
            return 0
        self.tokens -= 1
        return self.begin()

    async def take(self, ends: float) -> int:
        """Take a token. Wait for it while currently running requests may return one.

        Every returned token extends the wait to the requests that are running at that moment. In a
        failing fleet, nothing extends it, regardless of new prompts. Cancellation takes no token.

        :param ends: The latest time, by the event loop's clock.
        :return: The request's number, or 0 if there is no token in time.
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
            waiter.number = self.begin()  # it counts as running, so that later requests wait for it
            self._renewed = self._latest
            waiter.decided.set()
        else:
            self.tokens = min(self.tokens + 1, _MOST)

    def _is_hopeless(self, waiter: _Claim, oldest: int | None) -> bool:
        return oldest is None or oldest > max(waiter.latest, self._renewed)
