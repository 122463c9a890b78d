"""The opener of a fleet, which sends each request to one of several endpoints."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from gprochat_anyio._request.incoming import IncomingReply
from gprochat_anyio._request.loop_affinity import LoopAffinity
from gprochat_anyio._request.opener import PreparedRequest
from gprochat_anyio._request.sinks import TextSink
from gprochat_anyio._settings import Retry, Timeouts

from .fleet_request import FleetRequest, Opened
from .hedged_opening import HedgedOpening
from .member import Member
from .retry_budget import RetryBudget
from .roster import Roster


class FleetOpener:
    """Opener of a fleet's requests; see `Opener`.

    :param members: One or more endpoints.
    :param hedge_after: Time without text after which a second endpoint is asked, in seconds. `None`
        for no hedging.
    """

    def __init__(
        self,
        members: Sequence[Member],
        hedge_after: float | None,
        randomness: random.Random | None = None,
    ) -> None:
        self.closed: bool = False
        self.roster: Roster = Roster(members, randomness or random.Random())
        self._budget = RetryBudget()
        self._hedge_after = hedge_after if len(members) > 1 else None
        self._affinity = LoopAffinity("Fleet")
        self._clock: Callable[[], float] | None = None

    @property
    def timeouts(self) -> Timeouts:
        """The time limits of the first client. Each client uses its own."""
        return self.roster.members[0].endpoint.timeouts

    @property
    def retry(self) -> Retry:
        """The retry policy of the first client. Each client uses its own."""
        return self.roster.members[0].endpoint.retry

    async def open(
        self, request: PreparedRequest, sink: TextSink, *, whole: bool = False
    ) -> IncomingReply:
        """Open a request; see `Opener.open`."""
        if self._hedge_after is None:
            reply, _ = await self._prompt(request, whole=whole).open(sink)
        else:
            reply, _ = await self.open_at_one(request, sink)
        return reply

    async def open_at_one(self, request: PreparedRequest, sink: TextSink) -> Opened:
        """Open a request, and return the endpoint with the reply."""
        prompt = self._prompt(request)
        if self._hedge_after is None:
            return await prompt.open(sink)
        return await HedgedOpening(prompt, sink, self._hedge_after).run()

    def check_room(self) -> None:
        """Check that each endpoint has room for a consumer; see `Opener.check_room`."""
        for member in self.roster.members:
            member.endpoint.check_room()

    def check_usable(self) -> float:
        """Check that the fleet can be used here, and return the event loop's time.

        :raises RuntimeError: If the fleet is closed, or belongs to another event loop or process.
        """
        self._check_open()
        return self._affinity.check().clock()

    async def aclose(self) -> None:
        """Close all clients, also if closing one of them fails."""
        if not self.closed:
            self._affinity.check()
        self.closed = True
        failure: BaseException | None = None
        for member in self.roster.members:
            try:
                await member.endpoint.aclose()
            except BaseException as error:  # noqa: BLE001 - raised after all have been closed
                failure = failure or error
        if failure is not None:
            raise failure

    def _prompt(self, request: PreparedRequest, *, whole: bool = False) -> FleetRequest:
        self._check_open()
        clock = self._clock  # the endpoint checks the event loop
        if clock is None:
            clock = self._clock = self._affinity.check().clock
        return FleetRequest(self.roster, self._budget, request, whole=whole, clock=clock)

    def _check_open(self) -> None:
        if self.closed:
            raise RuntimeError("this Fleet is closed; create a new one, with new clients")
