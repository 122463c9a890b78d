"""When the next request of a fan-out may start. Decides only: it has no clock and waits for nobody.

A site that refuses a request with a rate limit slows all of them down: none starts until the pause
is over, then one alone, and the others once that one is not refused.
"""

from __future__ import annotations

import math
from typing import Literal

from gprochat_anyio._errors import RateLimitError
from gprochat_anyio._settings import Retry


class Pace:
    """How many requests may run, and from when on the next may start.

    :param max_at_once: how many requests run at the most
    :param max_per_second: how many start in a second, evenly spaced; None is no limit
    :param adaptive: whether each pause halves the number of requests that run, and each answer
        adds its part of one more, never beyond `max_at_once`
    :param retry: how often to ask again, and how long a pause without `Retry-After` is
    :raises ValueError: that names the argument, for one that can not be
    """

    __slots__ = (
        "_adaptive",
        "_fruitless",
        "_interval",
        "_limit",
        "_max_at_once",
        "_next",
        "_pauses",
        "_probe",
        "_resumes",
        "_retry",
    )

    def __init__(
        self, *, max_at_once: int, max_per_second: float | None, adaptive: bool, retry: Retry
    ) -> None:
        if isinstance(max_at_once, bool) or not isinstance(max_at_once, int) or max_at_once < 1:
            raise ValueError("max_at_once must be a whole number, at least 1")
        if max_per_second is not None and (
            isinstance(max_per_second, bool)
            or not isinstance(max_per_second, int | float)
            or not 0 < max_per_second < math.inf
        ):
            raise ValueError("max_per_second must be a number above 0, or None for no limit")
        if not isinstance(adaptive, bool):
            raise ValueError("adaptive must be True or False")
        self._max_at_once = max_at_once
        self._interval = 0.0 if max_per_second is None else 1 / max_per_second
        self._adaptive = adaptive
        self._retry = retry
        self._limit = float(max_at_once)
        self._next = self._resumes = -math.inf
        self._pauses = 0
        self._fruitless = 0  # pauses in a row, without an answer in between
        self._probe: Literal["none", "due", "running"] = "none"

    @property
    def limit(self) -> int:
        """How many requests may run now."""
        return int(self._limit)

    @property
    def free_at(self) -> float:
        """From when on the next request may start, by the event loop's clock: maybe a time that
        has passed; infinite while it depends on the request that runs alone."""
        return math.inf if self._probe == "running" else max(self._next, self._resumes)

    @property
    def pauses(self) -> int:
        """How many pauses have begun."""
        return self._pauses

    @property
    def given_up(self) -> bool:
        """Whether as many pauses in a row as there are attempts brought no answer."""
        return self._fruitless >= self._retry.attempts

    def start(self, now: float) -> int:
        """Count a request that starts.

        :return: a number to tell its fate by
        """
        self._next = now + self._interval
        if self._probe == "due":
            self._probe = "running"
        return self._pauses

    def answered(self, request: int) -> None:
        """Count a request that the site answers."""
        if request == self._pauses:
            self._probe = "none"
            self._fruitless = 0
        if self._adaptive:
            self._limit = min(self._limit + 1 / self._limit, self._max_at_once)

    def failed(self, request: int) -> None:
        """Count a request that failed, but not by a rate limit."""
        if request == self._pauses:
            self._probe = "none"

    def refused(self, request: int, error: RateLimitError, now: float) -> bool:
        """Count a request that was refused. Requests that had started before a pause belong to
        it, and only make it longer if the site says so.

        :return: whether to ask again after the pause
        """
        if request == self._pauses:
            self._pauses += 1
            self._fruitless += 1
            self._probe = "due"
            wait = self._retry.wait(self._fruitless, error)
            if self._adaptive:
                self._limit = max(self._limit / 2, 1)
        else:
            wait = error.retry_after or 0.0
        self._resumes = max(self._resumes, now + wait)
        return self._retry.covers(error) and not self.given_up
