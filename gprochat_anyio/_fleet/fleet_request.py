"""One prompt on its way through a fleet: from one endpoint to the next, up to the first text."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import NoReturn

import anyio

from gprochat_anyio._errors import GPROChatError, RateLimitError
from gprochat_anyio._redaction import strip_traceback
from gprochat_anyio._request.attempts import Attempts
from gprochat_anyio._request.endpoint import PreparedRequest
from gprochat_anyio._request.incoming import IncomingReply
from gprochat_anyio._request.limiter import starts_of
from gprochat_anyio._request.observers import Failure, Predecessor
from gprochat_anyio._request.sinks import TextSink
from gprochat_anyio._settings import Retry

from .faults import Fault, fault_of
from .first_attempt import FirstAttempt
from .member import Member
from .retry_budget import RetryBudget
from .roster import Roster

_BACKOFF = GPROChatError()
"""Stands for an error without a `Retry-After`, whose pauses the endpoints keep themselves."""

Opened = tuple[IncomingReply, Member]
"""A reply whose first text has arrived, and the endpoint that gave it."""


class FleetRequest:
    """One prompt, and the endpoints that were asked for it.

    Two tasks may open it at the same time: one calls `open`, the other `open_hedge`.

    :param whole: True to wait for the whole reply, not for its first text
    :param clock: of the event loop
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
        "_whole",
        "is_refused",
        "on_start",
    )

    def __init__(
        self,
        roster: Roster,
        budget: RetryBudget,
        request: PreparedRequest,
        *,
        whole: bool,
        clock: Callable[[], float],
    ) -> None:
        self._roster = roster
        self._budget = budget
        self._request = request
        self._whole = whole
        self._clock = clock
        self._sent_at = clock()
        self._attempts: list[Attempts] = []  # of each endpoint
        self._rounds = 1
        self._asking: list[Member] = []
        self._tried: set[Member] = set()
        self._errors: dict[Member, GPROChatError] = {}
        self.is_refused = False
        """True if any endpoint would refuse the prompt."""
        self.on_start: Callable[[], None] | None = None
        """Called as a request to an endpoint starts: a limiter delays it no more."""

    @property
    def has_started(self) -> bool:
        """True once an endpoint is being asked, and no limiter delays it."""
        return bool(self._attempts and self._attempts[0].number)

    @property
    def has_failed(self) -> bool:
        """True if an endpoint has failed."""
        return bool(self._errors)

    async def open(self, sink: TextSink) -> Opened:
        """Open the request at one endpoint after another, up to the first text.

        :raises GPROChatError: The last error, with a note for each other endpoint that failed.
        """
        member = await self._choose()
        return await self._open(member, self._budget.begin(), sink, None)

    async def open_hedge(self, sink: TextSink) -> Opened | None:
        """Open the request at another endpoint than the one that has given no text so far.

        :return: None if there is no such endpoint, or no token for it, or if it fails.
        """
        member = self._roster.choose_from(self._untried())
        if member is None or not self._asking:
            return None
        number = self._budget.take_now()
        if not number:
            return None
        follows = self._predecessor(self._asking[0], None)
        try:
            return await self._ask(member, number, sink, follows), member
        except GPROChatError as error:
            self._note(member, error)
            return None

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

    async def _open(
        self, member: Member, number: int, sink: TextSink, follows: Predecessor | None
    ) -> Opened:
        while True:
            try:
                return await self._ask(member, number, sink, follows), member
            except GPROChatError as error:
                failure = error
            self._note(member, failure)
            follows = self._predecessor(member, failure)
            member, number = await self._next(failure)

    async def _ask(
        self, member: Member, number: int, sink: TextSink, follows: Predecessor | None
    ) -> IncomingReply:
        """Open one request to one endpoint.

        :param number: of the budget
        """
        endpoint, is_limited = member.endpoint, self._is_limited(member)
        ask = member.begin(self._clock())
        self._asking.append(member)
        self._tried.add(member)
        try:
            request = self._request._replace(
                retry=self._retry_at(member, is_limited=is_limited), began=self._began
            )
            attempts = endpoint.attempts(request)
            attempts.follows, attempts.on_start = follows, self.on_start
            self._attempts.append(attempts)
            reply = await endpoint.open(request, sink, whole=self._whole, attempts=attempts)
        except GPROChatError as error:
            ask.failed(error, self._clock(), is_limited=is_limited)
            self._budget.end(number)
            raise
        except BaseException:
            ask.released()
            self._budget.end(number)
            raise
        finally:
            self._asking.remove(member)
        reply.attempts = sum(attempts.number for attempts in self._attempts)
        ask.answered()
        self._budget.succeed(number)
        if reply.over:
            ask.ended(reply)
        else:
            reply.on_over = ask.ended
        return reply

    async def _next(self, error: GPROChatError) -> tuple[Member, int]:
        """Return the endpoint to ask after a failure, and the request's number in the budget.

        :raises GPROChatError: If there is none. `total` bounds every wait.
        """
        if self.is_refused or fault_of(error) is Fault.TIME or len(self._roster.members) == 1:
            self.fail()
        if not self._untried():
            if self._asking:  # a hedge goes on
                self.fail()
            await self._back_off()
        number = await self._budget.take(self._ends)
        if not number:
            if left := len(self._untried()):
                error.add_note(
                    f"{left} more were not asked: most requests to this Fleet fail at the moment"
                )
            self.fail()
        try:
            return await self._choose(), number
        except BaseException:
            self._budget.end(number)
            raise

    async def _back_off(self) -> None:
        """Wait until those that were tried may be asked again, as by their clients' `Retry`.

        :raises GPROChatError: If none may.
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
        self._tried.difference_update(again)

    async def _choose(self) -> Member:
        """Return the endpoint to ask; wait while all are paused.

        :raises GPROChatError: If the pauses do not end in time.
        """
        while True:
            now = self._clock()
            member = self._chosen(now)
            if member is not None:
                return member
            resumes = self._roster.resumes(now)
            if resumes >= self._ends:
                self._fail_paused(resumes - now)
            await anyio.sleep_until(resumes)

    def _chosen(self, now: float) -> Member | None:
        if len(self._roster.members) == 1:
            return self._roster.members[0]  # its client waits itself
        if not self._tried:
            return self._roster.choose(now)
        # what was left may be gone by now: then one that is there is asked again
        untried = self._roster.candidates(now, self._tried)
        return self._roster.choose_from(untried or self._roster.candidates(now, self._asking))

    def _untried(self) -> list[Member]:
        return self._roster.candidates(self._clock(), self._tried)

    def _retry_at(self, member: Member, *, is_limited: bool) -> Retry | None:
        given = self._request.retry
        if len(self._roster.members) == 1:
            return given
        if given is None and not is_limited:
            return member.retry
        return FirstAttempt.of(given or member.endpoint.retry, waits_for_turn=is_limited)

    def _is_limited(self, member: Member) -> bool:
        """Return True if an adaptive limiter finds out what the endpoint accepts."""
        limiters = (self._request.limiter, member.endpoint.limiter)
        return any(limiter is not None and starts_of(limiter).adaptive for limiter in limiters)

    @property
    def _began(self) -> float | None:
        """When `total` began; None while a limiter delays the first request."""
        if self._request.began is not None:
            return self._request.began
        if self._request.limiter is None:
            return self._sent_at
        return self._attempts[0].deadlines.began if self.has_started else None

    @property
    def _ends(self) -> float:
        """When `total` ends, by the shortest of the clients that may be asked."""
        began = self._began
        if began is None:
            return inf
        totals = (
            member.endpoint.timeouts.under(self._request.timeouts).total
            for member in (self._errors or self._roster.members)
        )
        return began + min(inf if total is None else total for total in totals)

    def _predecessor(self, member: Member, error: GPROChatError | None) -> Predecessor:
        began = self._sent_at if self._began is None else self._began
        failure = None if error is None else Failure.of(error)
        return Predecessor(member.endpoint.observers.site, failure, self._clock() - began)

    def _note(self, member: Member, error: GPROChatError) -> None:
        self._errors.pop(member, None)  # the order is that of the latest failures
        self._errors[member] = error
        if fault_of(error) is Fault.PROMPT:
            self.is_refused = True

    def _fail_paused(self, seconds: float) -> NoReturn:
        if self._errors:
            self.fail()
        raise RateLimitError(
            f"all endpoints of the Fleet that answer ask to wait, for {seconds:.1f} s at least: "
            "ask less at once, or add endpoints",
            status=429,
            retry_after=seconds,
        )
