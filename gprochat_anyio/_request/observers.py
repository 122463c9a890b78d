"""Observers of requests: the log, and OpenTelemetry.

Without observers, a request costs one check of the logger's level, and text costs nothing.
"""

from __future__ import annotations

import logging
import sys
from math import inf
from typing import ClassVar

import anyio

from .request_events import (
    NOTHING,
    End,
    Failure,
    How,
    Observe,
    Observed,
    Observer,
    Predecessor,
    Received,
)
from .request_log import LogObserver, reason_of, say

_log = logging.getLogger("gprochat_anyio")


class Watch:
    """Notifier of all observers of one request."""

    __slots__ = ("_attempts", "_began", "_handled", "_observers")

    def __init__(self, observers: list[Observer]) -> None:
        self._observers = observers
        self._began = anyio.current_time()
        self._attempts = 1
        # an exception that the caller was already handling does not end the request
        self._handled = sys.exception()

    def connected(self, seconds: float | None) -> None:
        for observer in self._observers:
            observer.connected(seconds)

    def retrying(self, attempt: int, error: Exception, pause: float) -> None:
        self._attempts = attempt + 1
        for observer in self._observers:
            observer.retrying(attempt, Failure.of(error), pause)

    def first_text(self) -> None:
        for observer in self._observers:
            observer.first_text(anyio.current_time() - self._began, self._attempts)

    def unanswered(self, error: BaseException) -> None:
        """Report that the request ended before its first text."""
        how: How = "failed" if isinstance(error, Exception) else "cancelled"
        self._ended(how, Failure.of(error))

    def ended(self, error: BaseException | None, complete: bool, received: Received) -> None:
        """Report the end of the reply.

        If it is neither complete nor failed, the caller has abandoned it. The reason is then the
        exception that is being handled.
        """
        if complete:
            self._ended("done", None, received)
            return
        if error is not None:
            self._ended("failed", Failure.of(error), received)
            return
        reason = sys.exception()
        if reason is None or reason is self._handled or isinstance(reason, GeneratorExit):
            self._ended("left", None, received)
        else:
            how: How = "left" if isinstance(reason, Exception) else "cancelled"
            self._ended(how, Failure.of(reason), received)

    def _ended(self, how: How, failure: Failure | None, received: Received = NOTHING) -> None:
        self._handled = None
        seconds = anyio.current_time() - self._began
        end = End(how, seconds, self._attempts, received, failure)
        for observer in self._observers:
            observer.ended(end)


class Observers:
    """Observers of a client's requests."""

    __slots__ = ("__weakref__", "endpoint", "observe")

    everywhere: ClassVar[Observe | None] = None
    """Observes the requests of all clients without an `observe` of their own."""

    def __init__(self, endpoint: Observed) -> None:
        self.endpoint: Observed = endpoint
        self.observe: Observe | None = None

    def watch(self, before: Predecessor | None = None) -> Watch | None:
        """Return the notifier of a new request, or `None` without observers.

        :param before: The request to another endpoint that this one replaces or hedges.
        """
        observe = self.observe or Observers.everywhere
        if observe is None and not _log.isEnabledFor(logging.INFO):
            return None
        observers: list[Observer] = []
        if _log.isEnabledFor(logging.INFO):
            observers.append(LogObserver(self.site))
        if observe is not None:
            observers.append(observe(self.endpoint))
        if before is not None:
            for observer in observers:
                observer.took_over(before)
        return Watch(observers)

    def paused(self, pause: float, at_once: float) -> None:
        """Report that a rate limit pauses a limiter's requests, and the limit from then on."""
        if _log.isEnabledFor(logging.INFO):
            given = {} if at_once == inf else {"at_once": int(at_once)}
            say(logging.INFO, "rate_limit.pause", site=self.site, pause=pause, **given)

    def ejected(self, error: Exception, seconds: float) -> None:
        """Report that a fleet has ejected the endpoint for some seconds."""
        if _log.isEnabledFor(logging.INFO):
            why = reason_of(Failure.of(error))
            say(logging.INFO, "fleet.ejected", site=self.site, **why, seconds=seconds)

    def recovered(self, seconds: float) -> None:
        """Report that an ejected endpoint works again, some seconds after its ejection."""
        if _log.isEnabledFor(logging.INFO):
            say(logging.INFO, "fleet.recovered", site=self.site, seconds=seconds)

    @property
    def site(self) -> str:
        """The endpoint's host and port."""
        host, port = self.endpoint[:2]
        if not port:
            return host
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
