"""The attempts to open one request: when each may start, and whether there is another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

import anyio

from gprochat_anyio._errors import GPROChatError, RateLimitError, SiteConnectionError
from gprochat_anyio._redaction import strip_traceback
from gprochat_anyio._settings import Retry

from .deadlines import Deadlines
from .request_events import Predecessor
from .starts import Permit


class Attempts:
    """Starts and counts the attempts of one request.

    :param deadlines: of the request; they span its attempts
    :param permits: each attempt starts with all of them
    :param waits_off_clock: True if no deadline runs while the request waits for its first start, or
        for another one because its endpoint had no room
    """

    __slots__ = (
        "_error",
        "_failures",
        "_is_off_clock",
        "_retry",
        "_sleep",
        "_waits_off_clock",
        "deadlines",
        "follows",
        "number",
        "on_start",
        "permits",
    )

    def __init__(
        self,
        deadlines: Deadlines,
        retry: Retry,
        permits: Sequence[Permit] = (),
        *,
        waits_off_clock: bool = False,
    ) -> None:
        self.number = 0
        """The number of attempts that have started."""
        self.permits = permits
        self.follows: Predecessor | None = None
        """The request to another endpoint that this one takes over from."""
        self.on_start: Callable[[], None] | None = None
        """Called as an attempt starts; must not raise."""
        self.deadlines = deadlines
        self._retry = retry
        self._waits_off_clock = self._is_off_clock = waits_off_clock
        self._failures = 0  # those that count
        self._sleep: float | None = None
        self._error: GPROChatError | None = None

    async def start(self) -> None:
        """Wait until the next attempt may start. It is a checkpoint after a failure.

        :raises GPROChatError: If it cannot start in time.
        """
        if self._sleep is not None:
            await anyio.sleep(self._sleep)
        if self.permits and not await self._acquire():
            raise strip_traceback(self._error or self._too_late())
        self.number += 1
        if self.on_start is not None:
            self.on_start()

    def _too_late(self) -> GPROChatError:
        now = anyio.current_time()
        pause = max(permit.pause(now) for permit in self.permits)
        if now + pause < self.deadlines.ends or now >= self.deadlines.ends:
            return self.deadlines.total_error(now)
        return RateLimitError(
            f"an earlier request was refused, and the endpoint asked for a pause: it ends in "
            f"{pause:g} s, after this request's Timeouts.total; ask then, or give total more",
            status=429,
            retry_after=pause,
        )

    async def _acquire(self) -> bool:
        ends = inf if self._is_off_clock else self.deadlines.ends
        try:
            for permit in self.permits:
                if not await permit.start(anyio.current_time(), ends):
                    self.release()
                    return False
        except BaseException:
            self.release()
            raise
        if self._is_off_clock:
            self.deadlines.restart(anyio.current_time())
        return True

    def release(self) -> None:
        """Take note that the attempt has ended, in whatever way."""
        for permit in self.permits:
            permit.release(anyio.current_time())

    def failed(self, error: GPROChatError) -> float | None:
        """Take note of a failure.

        :return: The seconds until the next attempt, as far as known; None if there is none.
        """
        now = anyio.current_time()
        self._error, self._is_off_clock = error, False
        again = True
        if self.permits and isinstance(error, RateLimitError):
            verdicts = [permit.refused(error, self._retry, now) for permit in self.permits]
            again = all(verdicts)
        else:
            self.release()
        if isinstance(error, RateLimitError) and any(permit.adapts for permit in self.permits):
            self._sleep = max(permit.backoff for permit in self.permits) or None
            pause = max(self._sleep or 0.0, *(permit.pause(now) for permit in self.permits))
            self._is_off_clock = self._waits_off_clock and not pause
            again = again and self._retry.attempts > 1
        else:
            self._failures += 1
            stale = isinstance(error, SiteConnectionError) and error.stale
            self._sleep = pause = 0.0 if stale else self._retry.wait(self._failures, error)
            again = self._failures < self._retry.attempts
        if not again or not self._retry.covers(error) or now + pause >= self.deadlines.ends:
            return None
        return pause
