"""The starts of requests: first come, first served, evenly spaced, so many at once."""

from __future__ import annotations

from itertools import count
from math import inf
from weakref import WeakKeyDictionary

import anyio

from gprochat_anyio._errors import RateLimitError
from gprochat_anyio._settings import Retry

from .loop_affinity import LoopAffinity
from .observers import Observers
from .start_queue import QueuedRequest, StartQueue

_ages = count()


class Permit(QueuedRequest):
    """One request's permission to run, over all its attempts: it keeps its place in the queue."""

    __slots__ = ("_lane", "_site", "_starts", "is_running")

    def __init__(
        self,
        starts: Starts,
        site: Observers,
        lane: StartQueue[Permit],
        order: int,
        *,
        may_be_held: bool,
    ) -> None:
        super().__init__(order, may_be_held=may_be_held)
        self.is_running = False
        """True from its start to its end."""
        self._starts = starts
        self._site = site
        self._lane = lane

    async def start(self, now: float, ends: float) -> bool:
        """Wait until the request may start; no checkpoint if it may at once.

        :param now: the time, by the event loop's clock
        :param ends: the latest time to start
        :return: False if it cannot start in time
        """
        return self._starts.start_now(self, self._lane, now) or await self._starts.wait(
            self, self._lane, ends
        )

    def begin(self, now: float) -> None:
        """Count it among those that run."""
        self.is_running = True
        self._lane.start(self, now)

    def answered(self, now: float) -> None:
        """Take note that the first text has come: another may probe for more, now or later."""
        self._lane.answered(self, now)
        self._starts.dispatch(now)

    def refused(self, error: RateLimitError, retry: Retry, now: float) -> bool:
        """End the attempt, which a rate limit refused.

        :return: True if the endpoint may be asked again, at the next start
        """
        assert self.is_running
        self.is_running = False
        was_paused = self._lane.resumes > now
        again = self._starts.refused(self, self._lane, error, retry, now)
        if self.pause(now) and not was_paused:
            self._site.paused(self.pause(now), self._lane.limit)
        return again

    def release(self, now: float) -> None:
        """End the attempt; repeatedly."""
        if self.is_running:
            self.is_running = False
            self._lane.end(self)
            self._starts.ended(self, now)

    def pause(self, now: float) -> float:
        """Return how many seconds the endpoint has asked to be left alone."""
        return max(self._lane.resumes - now, 0.0)

    @property
    def adapts(self) -> bool:
        """True if its endpoint's limit adapts to what it refuses."""
        return self._starts.adaptive


class Starts:
    """Decides when requests start, to any number of endpoints.

    Those that wait keep the time themselves: one of them, the keeper, sleeps until the next start.

    :param max_at_once: the number of requests that run at once; infinite if there is no limit
    :param interval: seconds from one start to the next
    :param adaptive: False to keep this number for every endpoint, whatever it refuses
    :param of_connections: True for the connections of one endpoint
    """

    def __init__(
        self, max_at_once: float, interval: float, *, adaptive: bool, of_connections: bool = False
    ) -> None:
        self.has_rate = interval > 0
        self.order = (self.has_rate, of_connections, -next(_ages))
        """The order in which a request that starts by several acquires them. In different orders,
        two requests could wait for each other. The rate comes last, so that starts are spaced as
        they are sent, and behind a limiter no connection is taken before its time."""
        self.max_at_once = max_at_once
        self.adaptive = adaptive
        self.running = self.refusals = 0
        self.lanes: WeakKeyDictionary[Observers, StartQueue[Permit]] = WeakKeyDictionary()
        self._held = 0
        self._interval = interval
        self._next = -inf
        self._orders = count()
        self._waiting: dict[StartQueue[Permit], None] = {}  # ordered, as a set is not
        self._keeper: Permit | None = None
        self._timer: anyio.CancelScope | None = None
        self._affinity = LoopAffinity("Limiter")

    @property
    def waiting(self) -> int:
        """The number of requests that wait for their start."""
        return sum(map(len, self._waiting))

    def permit(self, site: Observers, *, may_be_held: bool = False) -> Permit:
        """Return the permit of a request that begins.

        :param site: the endpoint, whose lane lives as long
        :param may_be_held: True to leave a start for the consumer of the reply
        :raises RuntimeError: On another event loop.
        """
        self._affinity.check()
        lane = self.lanes.get(site)
        if lane is None:
            lane = self.lanes[site] = StartQueue(self.max_at_once, adaptive=self.adaptive)
        return Permit(self, site, lane, next(self._orders), may_be_held=may_be_held)

    def start_now(self, permit: Permit, lane: StartQueue[Permit], now: float) -> bool:
        """Start a request if it may start, and no other waits: `dispatch` decides among several."""
        if self._waiting or not self._may_start(permit, lane, now):
            return False
        self._begin(permit, now)
        return True

    async def wait(self, permit: Permit, lane: StartQueue[Permit], ends: float) -> bool:
        """Wait for a start. Cancelled, or too late, the request leaves the queue."""
        permit.ends, permit.is_given_up = ends, False
        lane.add(permit)
        self._waiting[lane] = None
        try:
            self.dispatch(anyio.current_time())
            while not (permit.is_running or permit.is_given_up):
                if lane.resumes >= ends:
                    return False
                now = await self._sleep(permit)
                if not permit.is_running:
                    if now >= ends:
                        return False
                    self.dispatch(now)
            return permit.is_running
        finally:
            if not permit.is_running:
                self._leave(permit, lane)
            self._appoint()

    def refused(
        self,
        permit: Permit,
        lane: StartQueue[Permit],
        error: RateLimitError,
        retry: Retry,
        now: float,
    ) -> bool:
        """Count a refusal; see `Lane.refused`."""
        self.refusals += 1
        again = lane.refused(permit, error, retry, now)
        if lane.given_up(retry):
            for other in lane:
                if other.serial and other.signal is not None:
                    other.is_given_up = True
                    other.signal.set()
        self.ended(permit, now)
        return again

    def ended(self, permit: Permit, now: float) -> None:
        """Count a request that no longer runs."""
        self.running -= 1
        self._held -= permit.may_be_held
        self.dispatch(now)

    def dispatch(self, now: float) -> None:
        """Start what may start, in the order of the requests' first attempts."""
        while self._waiting and (found := self._first(now)) is not None:
            permit, lane = found
            self._begin(permit, now)
            self._leave(permit, lane)
            if permit.signal is not None:
                permit.signal.set()
        if self._waiting:
            if self._timer is not None and self._keeper is not None:
                self._timer.deadline = min(self._keeper.ends, self._due())
            self._appoint()

    def _begin(self, permit: Permit, now: float) -> None:
        self._next = now + self._interval
        self.running += 1
        self._held += permit.may_be_held
        permit.begin(now)

    def _leave(self, permit: Permit, lane: StartQueue[Permit]) -> None:
        lane.remove(permit)
        if not lane:
            del self._waiting[lane]

    def _may_start(self, permit: Permit, lane: StartQueue[Permit], now: float) -> bool:
        return (
            now >= self._next
            and now >= lane.resumes
            and self._has_room(permit)
            and now >= lane.has_room_from(for_consumer=not permit.may_be_held)
        )

    def _has_room(self, permit: Permit) -> bool:
        if self.running >= self.max_at_once:
            return False
        return not permit.may_be_held or self._held < self.max_at_once - 1

    def _first(self, now: float) -> tuple[Permit, StartQueue[Permit]] | None:
        ready = [
            (permit, lane)
            for lane in self._waiting
            for permit in lane.heads()
            if self._may_start(permit, lane, now)
        ]
        return min(ready) if ready else None

    def _due(self) -> float:
        """Return when the next request may start, as far as that is a matter of time."""
        due = (
            max(lane.resumes, self._next, lane.has_room_from(for_consumer=not permit.may_be_held))
            for lane in self._waiting
            for permit in lane.heads()
            if self._has_room(permit)
        )
        return min(due, default=inf)

    async def _sleep(self, permit: Permit) -> float:
        """Wait for a signal, or as the keeper for the next start. Return the time."""
        permit.signal = anyio.Event()
        is_keeper = self._keeper is None
        due = min(self._due(), permit.ends) if is_keeper else permit.ends
        try:
            with anyio.CancelScope(deadline=due) as scope:
                if is_keeper:
                    self._keeper, self._timer = permit, scope
                await permit.signal.wait()
        finally:
            permit.signal = None
            if is_keeper:
                self._keeper = self._timer = None
        return anyio.current_time()

    def _appoint(self) -> None:
        """Make one of those that wait the keeper, if the next start is a matter of time."""
        if self._keeper is None and self._waiting and self._due() < inf:
            for lane in self._waiting:
                for permit in lane:
                    if permit.signal is not None:
                        permit.signal.set()
                        return
