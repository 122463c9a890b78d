"""The attempts of one request: their starts, and the decision to retry."""

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
    """The attempts of one request.

    :param deadlines: The request's deadlines, which span its attempts.
    :param permits: The permits that each attempt acquires.
    :param waits_untimed: Count neither the time before the first start nor the time before another
        start after the endpoint refused the request for lack of capacity.
    """

    __slots__ = (
        "_error",
        "_failures",
        "_is_untimed",
        "_retry",
        "_sleep",
        "_waits_untimed",
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
        waits_untimed: bool = False,
    ) -> None:
        self.number: int = 0
        """The number of attempts that have started."""
        self.permits: Sequence[Permit] = permits
        self.follows: Predecessor | None = None
        """The request to another endpoint that this one replaces or hedges."""
        self.on_start: Callable[[], None] | None = None
        """Called when an attempt starts. It must not raise."""
        self.deadlines: Deadlines = deadlines
        self._retry = retry
        self._waits_untimed = self._is_untimed = waits_untimed
        self._failures = 0  # those that count as attempts
        self._sleep: float | None = None
        self._error: GPROChatError | None = None

    async def start(self) -> None:
        """Wait until the next attempt may start. After a failure, this is a checkpoint.

        :raises GPROChatError: If the attempt cannot start in time.
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
            f"the endpoint refused an earlier request and asked for a pause of another {pause:g} "
            "s, which ends after this request's Timeouts.total; wait, or increase total",
            status=429,
            retry_after=pause,
        )

    async def _acquire(self) -> bool:
        ends = inf if self._is_untimed else self.deadlines.ends
        try:
            for permit in self.permits:
                if not await permit.start(anyio.current_time(), ends):
                    self.release()
                    return False
        except BaseException:
            self.release()
            raise
        if self._is_untimed:
            self.deadlines.restart(anyio.current_time())
        return True

    def release(self) -> None:
        """Release the permits of the attempt, which has ended."""
        for permit in self.permits:
            permit.release(anyio.current_time())

    def failed(self, error: GPROChatError) -> float | None:
        """Decide whether to retry after a failure.

        :return: The expected seconds until the next attempt. `None` if there is none.
        """
        now = anyio.current_time()
        self._error, self._is_untimed = error, False
        again = True
        if self.permits and isinstance(error, RateLimitError):
            verdicts = [permit.refused(error, self._retry, now) for permit in self.permits]
            again = all(verdicts)
        else:
            self.release()
        if isinstance(error, RateLimitError) and any(permit.adapts for permit in self.permits):
            self._sleep = max(permit.backoff for permit in self.permits) or None
            pause = max(self._sleep or 0.0, *(permit.pause(now) for permit in self.permits))
            self._is_untimed = self._waits_untimed and not pause
            again = again and self._retry.attempts > 1
        else:
            self._failures += 1
            stale = isinstance(error, SiteConnectionError) and error.stale
            self._sleep = pause = 0.0 if stale else self._retry.wait(self._failures, error)
            again = self._failures < self._retry.attempts
        if not again or not self._retry.covers(error) or now + pause >= self.deadlines.ends:
            return None
        return pause
