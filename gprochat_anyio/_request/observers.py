"""Observers of requests: the log, and OpenTelemetry's.

A request that nobody watches costs one look at the logger's level, and a text none.
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
    """Tells what happens to one request to all who observe it."""

    __slots__ = ("_attempts", "_began", "_handled", "_observers")

    def __init__(self, observers: list[Observer]) -> None:
        self._observers = observers
        self._began = anyio.current_time()
        self._attempts = 1
        # what the caller was handling before is not what ends the request
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
        """The request ended before its first text."""
        how: How = "failed" if isinstance(error, Exception) else "cancelled"
        self._ended(how, Failure.of(error))

    def ended(self, error: BaseException | None, complete: bool, received: Received) -> None:
        """The reply ended. Without an error, and if it is not complete, it was given up: then the
        exception that is being handled tells why."""
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

    __slots__ = ("__weakref__", "_endpoint", "observe")

    everywhere: ClassVar[Observe | None] = None
    """Observes the requests of all clients that have no `observe` of their own."""

    def __init__(self, endpoint: Observed) -> None:
        self._endpoint = endpoint
        self.observe: Observe | None = None

    def watch(self, before: Predecessor | None = None) -> Watch | None:
        """Return the watch of a request that begins; None if nobody wants to know.

        :param before: the request to another endpoint that it takes over from
        """
        observe = self.observe or Observers.everywhere
        if observe is None and not _log.isEnabledFor(logging.INFO):
            return None
        observers: list[Observer] = []
        if _log.isEnabledFor(logging.INFO):
            observers.append(LogObserver(self.site))
        if observe is not None:
            observers.append(observe(self._endpoint))
        if before is not None:
            for observer in observers:
                observer.took_over(before)
        return Watch(observers)

    def paused(self, pause: float, at_once: float) -> None:
        """Tell that a rate limit makes the requests of a limiter wait, and how many run then."""
        if _log.isEnabledFor(logging.INFO):
            given = {} if at_once == inf else {"at_once": int(at_once)}
            say(logging.INFO, "rate_limit.pause", site=self.site, pause=pause, **given)

    def ejected(self, error: Exception, seconds: float) -> None:
        """A fleet leaves the endpoint alone for so many seconds."""
        if _log.isEnabledFor(logging.INFO):
            why = reason_of(Failure.of(error))
            say(logging.INFO, "fleet.ejected", site=self.site, **why, seconds=seconds)

    def recovered(self, seconds: float) -> None:
        """An endpoint answers again, so many seconds after a fleet has ejected it."""
        if _log.isEnabledFor(logging.INFO):
            say(logging.INFO, "fleet.recovered", site=self.site, seconds=seconds)

    @property
    def site(self) -> str:
        """Host and port."""
        host, port = self._endpoint[:2]
        if not port:
            return host
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
