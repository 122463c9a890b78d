"""Log records of requests.

`docs/observability.md` lists the events and their fields, which are a stable interface.
"""

from __future__ import annotations

import logging
from itertools import count

from .request_events import End, Failure, Predecessor

_log = logging.getLogger("gprochat_anyio")
_numbers = count(1)


class LogObserver:
    """Observer that logs a request's events."""

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
        received = end.received
        usage = received.usage
        self._debug(
            f"request.{end.how}",
            end.failure,
            seconds=end.seconds,
            attempts=end.attempts,
            chunks=received.chunks,
            characters=received.characters,
            finish_reason=received.finish_reason,
            input_tokens=None if usage is None else usage.input_tokens,
            output_tokens=None if usage is None else usage.output_tokens,
        )

    def _debug(
        self, event: str, failure: Failure | None = None, **fields: str | float | None
    ) -> None:
        if self._is_debugged:
            self._say(logging.DEBUG, event, failure, **fields)

    def _say(
        self, level: int, event: str, failure: Failure | None, **fields: str | float | None
    ) -> None:
        why = {} if failure is None else reason_of(failure)
        say(level, event, request=self._request, site=self._site, **why, **fields)


def reason_of(failure: Failure) -> dict[str, str | int | None]:
    """Return the fields of a failure."""
    return {"error": failure.error, "status": failure.status, "phase": failure.phase}


def say(level: int, event: str, **fields: str | float | None) -> None:
    """Log an event. Fields that are `None` are omitted."""
    given = {name: value for name, value in fields.items() if value is not None}
    shown = (
        f"{name}={value:.3f}" if isinstance(value, float) else f"{name}={value}"
        for name, value in given.items()
    )
    extra = {f"gprochat_{name}": value for name, value in given.items()}
    _log.log(level, "%s %s", event, " ".join(shown), extra={"gprochat_event": event, **extra})
