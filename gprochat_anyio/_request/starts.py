"""The starts of requests: in order, evenly spaced, and limited in number."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from math import inf
from weakref import WeakKeyDictionary

import anyio

from gprochat_anyio._errors import RateLimitError
from gprochat_anyio._settings import Retry

from .loop_affinity import LoopAffinity
from .observers import Observers
from .request_events import Observed
from .start_limits import StartLimits
from .start_queue import QueuedRequest, StartQueue

_ages = count()


class Permit(QueuedRequest):
    """A request's permission to run. It keeps its place in the queue across attempts."""

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
        """True from the start of an attempt to its end."""
        self._starts = starts
        self._site = site
        self._lane = lane

    async def start(self, now: float, ends: float) -> bool:
        """Wait until the request may start. If it may start immediately, this is not a checkpoint.

        :param now: The time, by the event loop's clock.
        :param ends: The latest time to start.
        :return: False if the request cannot start in time.
        """
        return self._starts.start_now(self, self._lane, now) or await self._starts.wait(
            self, self._lane, ends
        )

    def begin(self, now: float) -> None:
        """Record the start of an attempt."""
        self.is_running = True
        self._lane.start(self, now)

    def answered(self, now: float) -> None:
        """Record the first text, after which another request may probe."""
        self._lane.answered(self, now)
        self._starts.dispatch(now)

    def refused(self, error: RateLimitError, retry: Retry, now: float) -> bool:
        """End the attempt, which a rate limit refused.

        :return: True to retry at the next start.
        """
        assert self.is_running
        self.is_running = False
        was_paused = self._lane.resumes > now
        again = self._starts.refused(self, self._lane, error, retry, now)
        pause = self.pause(now)
        if pause and not was_paused:
            self._site.paused(pause, self._lane.limit)
        if self._starts.on_retry_after is not None and error.retry_after is not None and pause:
            self._starts.on_retry_after(self._site.endpoint, pause)
        return again

    def release(self, now: float) -> None:
        """End the attempt. This may be called repeatedly."""
        if self.is_running:
            self.is_running = False
            self._lane.end(self)
            self._starts.ended(self, now)

    def pause(self, now: float) -> float:
        """Return the rest of the pause that the endpoint requested, in seconds."""
        return max(self._lane.resumes - now, 0.0)

    @property
    def adapts(self) -> bool:
        """True if the endpoint's limit adapts to refusals."""
        return self._starts.adaptive


class Starts:
    """Scheduler of the starts of requests, to any number of endpoints.

    There is no background task: one of the waiting tasks, the keeper, sleeps until the next start.

    :param max_at_once: Maximum number of concurrent requests; infinite for no limit.
    :param interval: Minimum time between two starts, in seconds.
    :param adaptive: Adapt the limit to each endpoint.
    :param of_connections: True if this limits the connections of one endpoint.
    """

    def __init__(
        self, max_at_once: float, interval: float, *, adaptive: bool, of_connections: bool = False
    ) -> None:
        self.has_rate = interval > 0
        self.order = (self.has_rate, of_connections, -next(_ages))
        """The order in which a request acquires several of these; in different orders, two requests
        could deadlock. A rate comes last, so that requests are sent as evenly as they start. A
        limiter comes before connections, so that none is taken too early."""
        self.limits = StartLimits(max_at_once, interval)
        self.adaptive = adaptive
        self.refusals = 0
        self.lanes: WeakKeyDictionary[Observers, StartQueue[Permit]] = WeakKeyDictionary()
        self.on_retry_after: Callable[[Observed, float], object] | None = None
        """Called with an endpoint that has requested a pause, and the seconds until its end."""
        self._pauses: dict[Observed, float] = {}  # ends of pauses, also before the first request
        self._orders = count()
        self._waiting: dict[StartQueue[Permit], None] = {}  # a dict, because a set is not ordered
        self._keeper: Permit | None = None
        self._timer: anyio.CancelScope | None = None
        self._affinity = LoopAffinity("Limiter")

    @property
    def waiting(self) -> int:
        """The number of requests that wait for their start."""
        return sum(map(len, self._waiting))

    def permit(self, site: Observers, *, may_be_held: bool = False) -> Permit:
        """Return the permit of a new request.

        :param site: The endpoint, whose limit exists as long as this object.
        :param may_be_held: Leave a start for the consumer of the reply.
        :raises RuntimeError: If called in another event loop.
        """
        self._affinity.check()
        lane = self.lanes.get(site)
        if lane is None:
            lane = self.lanes[site] = StartQueue(self.limits.max_at_once, adaptive=self.adaptive)
            lane.pause(self._pauses.get(site.endpoint, -inf))
        return Permit(self, site, lane, next(self._orders), may_be_held=may_be_held)

    def allow(self, at_once: float, interval: float, now: float) -> None:
        """Change the limits of later starts; see `StartLimits.allow`."""
        self.limits.allow(at_once, interval, now)
        self.dispatch(now)

    def pause(self, endpoint: Observed, until: float) -> None:
        """Pause the requests to an endpoint until a time."""
        self._pauses[endpoint] = until
        for site, lane in self.lanes.items():
            if site.endpoint == endpoint:
                lane.pause(until)

    def start_now(self, permit: Permit, lane: StartQueue[Permit], now: float) -> bool:
        """Start a request if it may start and no other waits. Otherwise, `dispatch` decides."""
        if self._waiting or now < self.limits.due(permit, lane):
            return False
        self._begin(permit, now)
        return True

    async def wait(self, permit: Permit, lane: StartQueue[Permit], ends: float) -> bool:
        """Wait for a start. Return False if it comes too late. Cancellation leaves the queue."""
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
        """Record a refusal; see `Lane.refused`."""
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
        """Record the end of a request."""
        self.limits.end(permit)
        self.dispatch(now)

    def dispatch(self, now: float) -> None:
        """Start the requests that may start, in the order of their first attempts."""
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
        self.limits.start(permit, now)
        permit.begin(now)

    def _leave(self, permit: Permit, lane: StartQueue[Permit]) -> None:
        lane.remove(permit)
        if not lane:
            del self._waiting[lane]

    def _first(self, now: float) -> tuple[Permit, StartQueue[Permit]] | None:
        ready = [
            (permit, lane)
            for lane in self._waiting
            for permit in lane.heads()
            if now >= self.limits.due(permit, lane)
        ]
        return min(ready) if ready else None

    def _due(self) -> float:
        """Return the time of the next start, or infinity if it depends on another request's end."""
        due = (self.limits.due(permit, lane) for lane in self._waiting for permit in lane.heads())
        return min(due, default=inf)

    async def _sleep(self, permit: Permit) -> float:
        """Wait for a signal or, as the keeper, for the next start. Return the time."""
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
        """Wake a waiting task to become the keeper, if the time of the next start is known."""
        if self._keeper is None and self._waiting and self._due() < inf:
            for lane in self._waiting:
                for permit in lane:
                    if permit.signal is not None:
                        permit.signal.set()
                        return
