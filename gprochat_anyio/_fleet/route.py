"""The route of one prompt through a fleet: the choice of the next endpoint."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import NoReturn

import anyio

from gprochat_anyio._errors import GPROChatError, RateLimitError
from gprochat_anyio._redaction import strip_traceback
from gprochat_anyio._request.attempts import Attempts
from gprochat_anyio._request.opener import PreparedRequest

from .faults import Fault, fault_of
from .member import Member
from .retry_budget import RetryBudget
from .roster import Roster

_BACKOFF = GPROChatError()
"""An error without a `Retry-After`, because the endpoints keep their own pauses."""


class Route:
    """The endpoints that were tried for one prompt, and their errors.

    :param clock: The event loop's clock.
    """

    __slots__ = (
        "_asking",
        "_attempts",
        "_budget",
        "_clock",
        "_errors",
        "_request",
        "_roster",
        "_rounds",
        "_sent_at",
        "_tried",
        "is_refused",
    )

    def __init__(
        self,
        roster: Roster,
        budget: RetryBudget,
        request: PreparedRequest,
        clock: Callable[[], float],
    ) -> None:
        self._roster = roster
        self._budget = budget
        self._request = request
        self._clock = clock
        self._sent_at = clock()
        self._attempts: list[Attempts] = []  # one for each endpoint
        self._rounds = 1
        self._asking: list[Member] = []
        self._tried: list[Member] = []
        self._errors: dict[Member, GPROChatError] = {}
        self.is_refused = False
        """True if every endpoint would refuse the prompt."""

    @property
    def has_started(self) -> bool:
        """True once a request to an endpoint has started, after any wait for a limiter."""
        return bool(self._attempts and self._attempts[0].number)

    @property
    def has_failed(self) -> bool:
        """True if an endpoint has failed."""
        return bool(self._errors)

    def fail(self) -> NoReturn:
        """Raise the latest error, with a note for each other endpoint that failed.

        :raises GPROChatError: Always.
        """
        *others, (_, error) = self._errors.items()
        for member, other in others:
            note = f"{member.client.url}: {type(other).__name__}: {other}"
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
        raise strip_traceback(error)

    def _note(self, member: Member, error: GPROChatError) -> None:
        """Record an endpoint's error. The latest one is last."""
        self._errors.pop(member, None)
        self._errors[member] = error
        if fault_of(error) is Fault.PROMPT:
            self.is_refused = True

    async def _next(self, error: GPROChatError) -> tuple[Member, int]:
        """Return the next endpoint after a failure, and the request's number in the budget.

        `total` limits every wait.

        :raises GPROChatError: If there is no further endpoint.
        """
        if self.is_refused or fault_of(error) is Fault.TIME or self._roster.is_single:
            self.fail()
        if not self._untried():
            if self._asking:  # the hedge continues
                self.fail()
            await self._back_off()
        number = await self._budget.take(self._ends)
        if not number:
            if left := sum(member not in self._errors for member in self._untried()):
                error.add_note(
                    f"{left} more were not tried: most requests to this Fleet are failing"
                )
            self.fail()
        try:
            return await self._choose(), number
        except BaseException:
            self._budget.end(number)
            raise

    async def _back_off(self) -> None:
        """Wait until tried endpoints may be used again, as their clients' `Retry` allows.

        :raises GPROChatError: If none may be.
        """
        again = {
            member: retry
            for member, failure in self._errors.items()
            if (retry := self._request.retry or member.endpoint.retry).covers(failure)
            and retry.attempts > self._rounds
        }
        pause = min((retry.wait(self._rounds, _BACKOFF) for retry in again.values()), default=inf)
        if self._clock() + pause >= self._ends:
            self.fail()
        self._rounds += 1
        await anyio.sleep(pause)
        self._tried = [member for member in self._tried if member not in again]

    async def _choose(self) -> Member:
        """Return the next endpoint, after a wait if all are paused.

        :raises GPROChatError: If the pauses do not end in time.
        """
        while True:
            now = self._clock()
            # the untried endpoints may be ejected by now; then a tried one is used again
            untried = self._roster.candidates(now, self._tried)
            found = untried or self._roster.candidates(now, self._asking)
            member = self._roster.choose_from(found)
            if member is not None:
                return member
            resumes = self._roster.resumes(now)
            if resumes >= self._ends:
                self._fail_paused(resumes - now)
            await anyio.sleep_until(resumes)

    def _untried(self) -> list[Member]:
        return self._roster.candidates(self._clock(), self._tried)

    @property
    def _began(self) -> float | None:
        """The time at which `total` started. `None` while a limiter delays the first request."""
        if self._request.began is not None:
            return self._request.began
        if self._request.limiter is None:
            return self._sent_at
        return self._attempts[0].deadlines.began if self.has_started else None

    @property
    def _ends(self) -> float:
        """The time at which the shortest `total` of the relevant clients has passed."""
        began = self._began
        if began is None:
            return inf
        totals = (
            member.endpoint.timeouts.under(self._request.timeouts).total
            for member in (self._errors or self._roster.members)
        )
        return began + min(inf if total is None else total for total in totals)

    def _fail_paused(self, seconds: float) -> NoReturn:
        if self._errors:
            self.fail()
        raise RateLimitError(
            f"rate limits pause all working endpoints of the Fleet for another {seconds:.1f} s: "
            "send fewer requests at once, or add endpoints",
            status=429,
            retry_after=seconds,
        )
