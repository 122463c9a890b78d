"""Opening a fleet's request, at one endpoint after another."""

from __future__ import annotations

from collections.abc import Callable

from gprochat_anyio._errors import GPROChatError
from gprochat_anyio._request.incoming import IncomingReply
from gprochat_anyio._request.limiter import Limiter, starts_of
from gprochat_anyio._request.opener import PreparedRequest
from gprochat_anyio._request.request_events import Failure, Predecessor
from gprochat_anyio._request.sinks import TextSink
from gprochat_anyio._settings import Retry

from .first_attempt import FirstAttempt
from .member import Member
from .retry_budget import RetryBudget
from .roster import Roster
from .route import Route

Opened = tuple[IncomingReply, Member]
"""A reply whose first text has arrived, and its endpoint."""


class FleetRequest(Route):
    """One request of a fleet, which tries one endpoint after another.

    Two tasks may open it concurrently: one calls `open`, the other one `open_hedge`.

    :param whole: Wait for the complete reply, instead of its first text.
    :param clock: The event loop's clock.
    """

    __slots__ = ("_whole", "on_start")

    def __init__(
        self,
        roster: Roster,
        budget: RetryBudget,
        request: PreparedRequest,
        *,
        whole: bool,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(roster, budget, request, clock)
        self._whole = whole
        self.on_start: Callable[[], None] | None = None
        """Called when a request to an endpoint starts, after any wait for a limiter."""

    async def open(self, sink: TextSink) -> Opened:
        """Open the request at one endpoint after another, until one gives the first text.

        :raises GPROChatError: The last error, with a note for each other endpoint that failed.
        """
        now = self._sent_at
        member = self._roster.choose(now)
        if member is None:
            member = await self._choose()
            now = self._clock()
        number = self._budget.begin()
        follows: Predecessor | None = None
        while True:
            try:
                return await self._ask(member, number, sink, follows, now), member
            except GPROChatError as error:
                failure = error
            self._note(member, failure)
            follows = self._predecessor(member, failure)
            member, number = await self._next(failure)
            now = self._clock()

    async def open_hedge(self, sink: TextSink) -> Opened | None:
        """Open the request at another endpoint, because the first one is slow.

        :return: `None` if there is no other endpoint or no token, or if the hedge fails.
        """
        member = self._roster.choose_from(self._untried())
        if member is None or not self._asking:
            return None
        number = self._budget.take_now()
        if not number:
            return None
        follows = self._predecessor(self._asking[0], None)
        try:
            return await self._ask(member, number, sink, follows, self._clock()), member
        except GPROChatError as error:
            self._note(member, error)
            return None

    async def _ask(
        self,
        member: Member,
        number: int,
        sink: TextSink,
        follows: Predecessor | None,
        now: float,
    ) -> IncomingReply:
        """Open the request at one endpoint.

        :param number: The request's number in the budget.
        """
        endpoint, request = member.endpoint, self._request
        is_limited = _adapts(request.limiter) or _adapts(endpoint.limiter)
        ask = member.begin(now)
        self._asking.append(member)
        self._tried.append(member)
        try:
            attempts = endpoint.attempts(
                request, retry=self._retry_at(member, is_limited=is_limited), began=self._began
            )
            attempts.follows = follows
            attempts.on_start = self.on_start
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
        if len(self._attempts) > 1:
            reply.attempts = sum(attempts.number for attempts in self._attempts)
        ask.answered()
        self._budget.succeed(number)
        if reply.over:
            ask.ended(reply)
        else:
            reply.on_over = ask.ended
        return reply

    def _retry_at(self, member: Member, *, is_limited: bool) -> Retry | None:
        given = self._request.retry
        if self._roster.is_single:
            return given
        if given is None and not is_limited:
            return member.retry
        return FirstAttempt.of(given or member.endpoint.retry, waits_for_turn=is_limited)

    def _predecessor(self, member: Member, error: GPROChatError | None) -> Predecessor:
        began = self._sent_at if self._began is None else self._began
        failure = None if error is None else Failure.of(error)
        return Predecessor(member.endpoint.observers.site, failure, self._clock() - began)


def _adapts(limiter: Limiter | None) -> bool:
    """Return True if there is a limiter that adapts to each endpoint."""
    return limiter is not None and starts_of(limiter).adaptive
