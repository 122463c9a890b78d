"""Adaptive concurrency limit of one endpoint, learned from its refusals.

This module only decides: it reads no clock and never waits. An endpoint that refuses a request with
a rate limit accepts no more requests than it is serving at that moment. The limit drops to that
number. Single requests beyond it then probe for more, less often after each refused probe.
"""

from __future__ import annotations

from math import inf

from gprochat_anyio._errors import RateLimitError
from gprochat_anyio._settings import Retry

_LONGEST_WAIT = 32
"""Maximum number of accepted requests between two refused probes, unless the limit is higher."""

_SHORTEST_SILENCE, _LONGEST_SILENCE = 1.0, 32.0
"""Time without a response after which a request probes regardless of their number, in seconds.
Otherwise, replies that take minutes would keep all other requests waiting."""

_PAUSES_BETWEEN = 8
"""Minimum time between probes, as a multiple of the pause that a refused probe costs."""


class LaneRequest:
    """A lane's record of one request, across its attempts."""

    __slots__ = (
        "_refused_after",
        "backoff",
        "is_beyond",
        "is_probe",
        "may_be_held",
        "refusals",
        "serial",
    )

    def __init__(self, *, may_be_held: bool) -> None:
        self.may_be_held = may_be_held
        """True if the consumer may block the reply while it sends other requests."""
        self.serial = 0
        """The number of its latest start, among all starts of the lane."""
        self.is_probe = False
        self.is_beyond = False
        """True if it started beyond the limit, because a consumer may be waiting for it."""
        self.refusals = 0
        """The number of refusals that count against this request: a request that started later was
        accepted meanwhile, or this one had started beyond the limit."""
        self.backoff = 0.0
        """Wait before its next start because of its latest refusal, in seconds."""
        self._refused_after: int | None = None

    def note_refusal(self, latest_start: int, latest_answer: int) -> None:
        """Record a refusal, with the numbers of the latest started and accepted requests."""
        last, self._refused_after = self._refused_after, latest_start
        if last is not None and not self.is_probe and latest_answer > last:
            self.refusals += 1


class Lane:
    """The concurrency limit of one endpoint.

    :param most: Maximum number of concurrent requests.
    :param adaptive: Adapt the limit to refusals. If False, it is constant.
    """

    __slots__ = (
        "_adaptive",
        "_answers",
        "_backoff",
        "_fruitless",
        "_heard",
        "_held",
        "_latest_answer",
        "_latest_pause",
        "_latest_refusal",
        "_most",
        "_probe",
        "_probe_from",
        "_serial",
        "_silence",
        "_unrefused",
        "_wait",
        "limit",
        "resumes",
        "running",
    )

    def __init__(self, most: float, *, adaptive: bool) -> None:
        self.limit = most
        """Maximum number of concurrent requests that the endpoint is known to accept."""
        self.running = 0
        self.resumes = -inf
        """The end of the pause that the endpoint requested, by the event loop's clock."""
        self._most = most
        self._adaptive = adaptive
        self._held = 0  # running requests that their consumers may block
        self._serial = self._latest_answer = self._latest_pause = self._latest_refusal = 0
        self._fruitless = 0  # consecutive pauses without an accepted request
        self._probe: LaneRequest | None = None
        self._answers = 0  # since the limit changed or the last probe started
        self._unrefused = 0  # accepted requests since the last refusal
        self._wait = 1  # accepted requests before the next probe
        self._backoff = 0  # `_wait` after the latest refusal
        self._probe_from = -inf
        self._heard = -inf  # time of the latest response
        self._silence = _SHORTEST_SILENCE  # seconds after it, before the next probe

    def has_room_from(self, *, for_consumer: bool) -> float:
        """Return the time from which a request may start, apart from pauses.

        The time is infinite if the request must wait for another one.

        :param for_consumer: True for a request that no consumer blocks. It may always start if
            consumers may block all others, because one of them may be waiting for it.
        """
        if self.running < self.limit:
            return -inf
        if for_consumer and self.running == self._held:
            return -inf
        return self._may_probe_from()

    def _may_probe_from(self) -> float:
        if self._probe is not None or self.running != self.limit or self.limit == self._most:
            return inf
        if self._answers >= self._wait:
            return self._probe_from
        return max(self._probe_from, self._heard + self._silence)

    def start(self, request: LaneRequest, now: float) -> None:
        """Record the start of a request."""
        request.is_probe = now >= self._may_probe_from()
        request.is_beyond = self.running >= self.limit and not request.is_probe
        request.backoff = 0.0
        if request.is_probe:
            self._probe = request
        self.running += 1
        self._held += request.may_be_held
        self._serial += 1
        request.serial = self._serial

    def answered(self, request: LaneRequest, now: float) -> None:
        """Record the first text of a request, which the endpoint has accepted."""
        self._heard = now
        self._latest_answer = max(self._latest_answer, request.serial)
        self._fruitless = 0
        self._answers += 1
        self._unrefused += 1
        if self._probe is request:
            self._probe = None
            self.limit = min(self.limit + 1, self._most)
            self._answers, self._wait, self._probe_from = 0, 1, -inf
            self._silence = _SHORTEST_SILENCE

    def end(self, request: LaneRequest) -> None:
        """Record the end of a request."""
        self.running -= 1
        self._held -= request.may_be_held
        if self._probe is request:
            self._probe = None

    def refused(
        self, request: LaneRequest, error: RateLimitError, retry: Retry, now: float
    ) -> bool:
        """Record a refusal, which also ends the request.

        :return: True to retry at the lane's next start.
        """
        was_probe = self._probe is request
        self._heard = now
        self.end(request)
        if not self._adaptive:
            if error.retry_after is not None:
                self.pause(now + min(error.retry_after, retry.max_wait))
            return True
        if request.is_beyond:  # it says nothing about the limit
            request.refusals += 1
            pause = retry.wait(request.refusals, error)
            if error.retry_after is None:
                request.backoff = pause
            else:
                self.pause(now + pause)
            return request.refusals < retry.attempts
        if was_probe:
            self._silence = min(2 * self._silence, _LONGEST_SILENCE)
        else:
            self.limit = max(1, min(self.limit, self.running))
            if self._probe is not None and self._probe.serial < request.serial:
                self._probe = None  # it has only taken this one's place
        if request.serial > self._latest_refusal:  # otherwise it started before that refusal
            self._latest_refusal = self._serial
            self._back_off()
        if error.retry_after is not None or not self.running:
            if request.serial > self._latest_pause:
                self._latest_pause = self._serial
                self._fruitless += 1
            pause = retry.wait(max(self._fruitless, 1), error)
            self.pause(now + pause)
            self._probe_from = self.resumes + _PAUSES_BETWEEN * pause
        request.note_refusal(self._serial, self._latest_answer)
        return not self.given_up(retry) and request.refusals < retry.attempts

    def _back_off(self) -> None:
        """Double the wait before the next probe, or reset it after many requests without a
        refusal."""
        longest = max(_LONGEST_WAIT, int(self.limit))
        again = 0 if self._unrefused > 2 * longest else 2 * self._backoff
        self._wait = self._backoff = min(max(again, int(self.limit)), longest)
        self._answers = self._unrefused = 0

    def given_up(self, retry: Retry) -> bool:
        """Return True if no request was accepted in as many consecutive pauses as there are
        attempts."""
        return self._fruitless >= retry.attempts

    def pause(self, until: float) -> None:
        """Pause the requests until a time."""
        self.resumes = max(self.resumes, until)
