"""What happens to requests, told to those who want to know: the log, and OpenTelemetry's observer.

A request that nobody watches costs one look at the logger's level, and a text none. What is told
holds no prompt, no text, no key, no password and nothing of a proxy: an error is told by its type.
`docs/observability.md` has the table of events and their fields, which are kept as they are.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from math import inf
from typing import ClassVar, Literal, Protocol

import anyio

_log = logging.getLogger("gprochat_anyio")
_numbers = count(1)

How = Literal["done", "failed", "cancelled", "left"]
"""How a request ended: with the whole reply, with an error of the library's, by a cancellation (or
Ctrl-C), or because the caller stopped it, left its block or raised something there."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error, without its message."""

    error: str
    """The name of its class, or "cancelled"."""
    status: int | None = None
    """The HTTP status, if the site answered with one."""
    phase: str | None = None
    """Which clock ran out, if one did."""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        if not isinstance(error, Exception):
            return cls("cancelled")
        status, phase = getattr(error, "status", None), getattr(error, "phase", None)
        return cls(type(error).__name__, status or None, phase)


@dataclass(frozen=True, slots=True)
class End:
    """The end of a request."""

    how: How
    seconds: float
    """Since the request began: waits and failed attempts included."""
    attempts: int
    chunks: int
    characters: int
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class Predecessor:
    """A request to another endpoint of a fleet, for the same prompt."""

    site: str
    """Host and port."""
    failure: Failure | None
    """Why it failed; None if it is still waiting for its first text."""
    seconds: float
    """Since the prompt was first sent."""


class Observer(Protocol):
    """Is told what happens to one request, in the task where it happens. `ended` comes last."""

    def took_over(self, before: Predecessor) -> None:
        """The request was sent because another endpoint failed, or is slow; comes first."""
        ...

    def connected(self, seconds: float | None) -> None:
        """A connection was made in so many seconds; None: it was there already."""
        ...

    def retrying(self, attempt: int, failure: Failure, pause: float) -> None:
        """An attempt failed, and the next begins after so many seconds."""
        ...

    def first_text(self, seconds: float, attempts: int) -> None:
        """The first text has come, so many seconds after the request began."""
        ...

    def ended(self, end: End) -> None: ...


Observe = Callable[[str, int], Observer]
"""Called with the host and the port of the site as a request begins, in the caller's context."""


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

    def ended(
        self, error: BaseException | None, complete: bool, chunks: int, characters: int
    ) -> None:
        """The reply ended. Without an error, and if it is not complete, it was given up: then the
        exception that is being handled tells why."""
        if complete:
            self._ended("done", None, chunks, characters)
            return
        if error is not None:
            self._ended("failed", Failure.of(error), chunks, characters)
            return
        reason = sys.exception()
        if reason is None or reason is self._handled or isinstance(reason, GeneratorExit):
            self._ended("left", None, chunks, characters)
        else:
            how: How = "left" if isinstance(reason, Exception) else "cancelled"
            self._ended(how, Failure.of(reason), chunks, characters)

    def _ended(
        self, how: How, failure: Failure | None, chunks: int = 0, characters: int = 0
    ) -> None:
        self._handled = None
        seconds = anyio.current_time() - self._began
        end = End(how, seconds, self._attempts, chunks, characters, failure)
        for observer in self._observers:
            observer.ended(end)


class Observers:
    """Observers of a client's requests.

    :param host: of the site
    """

    __slots__ = ("__weakref__", "_host", "_port", "observe")

    everywhere: ClassVar[Observe | None] = None
    """Observes the requests of all clients that have no `observe` of their own."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
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
            observers.append(_LogObserver(self.site))
        if observe is not None:
            observers.append(observe(self._host, self._port))
        if before is not None:
            for observer in observers:
                observer.took_over(before)
        return Watch(observers)

    def paused(self, pause: float, at_once: float) -> None:
        """Tell that a rate limit makes the requests of a limiter wait, and how many run then."""
        if _log.isEnabledFor(logging.INFO):
            given = {} if at_once == inf else {"at_once": int(at_once)}
            _say(logging.INFO, "rate_limit.pause", site=self.site, pause=pause, **given)

    def ejected(self, error: Exception, seconds: float) -> None:
        """A fleet leaves the endpoint alone for so many seconds."""
        if _log.isEnabledFor(logging.INFO):
            why = _reason(Failure.of(error))
            _say(logging.INFO, "fleet.ejected", site=self.site, **why, seconds=seconds)

    def recovered(self, seconds: float) -> None:
        """An endpoint answers again, so many seconds after a fleet has ejected it."""
        if _log.isEnabledFor(logging.INFO):
            _say(logging.INFO, "fleet.recovered", site=self.site, seconds=seconds)

    @property
    def site(self) -> str:
        """Host and port."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self._port}"


class _LogObserver:
    """Writes what happens to a request into the log."""

    __slots__ = ("_is_debugged", "_request", "_site")

    def __init__(self, site: str) -> None:
        self._site = site
        self._request = next(_numbers)
        self._is_debugged = _log.isEnabledFor(logging.DEBUG)
        self._debug("request.started")

    def took_over(self, before: Predecessor) -> None:
        event = "fleet.hedge" if before.failure is None else "fleet.failover"
        self._say(logging.INFO, event, before.failure, after=before.site, seconds=before.seconds)

    def connected(self, seconds: float | None) -> None:
        if seconds is None:
            self._debug("connection.reused")
        else:
            self._debug("connection.made", seconds=seconds)

    def retrying(self, attempt: int, failure: Failure, pause: float) -> None:
        self._say(logging.INFO, "request.retry", failure, attempt=attempt, pause=pause)

    def first_text(self, seconds: float, attempts: int) -> None:
        self._debug("reply.started", seconds=seconds, attempts=attempts)

    def ended(self, end: End) -> None:
        self._debug(
            f"request.{end.how}",
            end.failure,
            seconds=end.seconds,
            attempts=end.attempts,
            chunks=end.chunks,
            characters=end.characters,
        )

    def _debug(self, event: str, failure: Failure | None = None, **fields: float) -> None:
        if self._is_debugged:
            self._say(logging.DEBUG, event, failure, **fields)

    def _say(self, level: int, event: str, failure: Failure | None, **fields: str | float) -> None:
        why = {} if failure is None else _reason(failure)
        _say(level, event, request=self._request, site=self._site, **why, **fields)


def _reason(failure: Failure) -> dict[str, str | int | None]:
    return {"error": failure.error, "status": failure.status, "phase": failure.phase}


def _say(level: int, event: str, **fields: str | float | None) -> None:
    given = {name: value for name, value in fields.items() if value is not None}
    shown = (
        f"{name}={value:.3f}" if isinstance(value, float) else f"{name}={value}"
        for name, value in given.items()
    )
    extra = {f"gprochat_{name}": value for name, value in given.items()}
    _log.log(level, "%s %s", event, " ".join(shown), extra={"gprochat_event": event, **extra})
