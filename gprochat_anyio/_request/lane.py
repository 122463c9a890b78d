"""The number of requests that one endpoint accepts at once, learned from its refusals.

It only decides: it has no clock and never waits. An endpoint that refuses a request with a rate
limit accepts no more than it is answering at that moment: the limit drops to that number, and
single requests beyond it probe for more, less often after each that is refused.
"""

from __future__ import annotations

from math import inf

from gprochat_anyio._errors import RateLimitError
from gprochat_anyio._settings import Retry

_LONGEST_WAIT = 32
"""Answers between two probes that are refused, at the most, unless the limit is higher."""

_SHORTEST_SILENCE, _LONGEST_SILENCE = 1.0, 32.0
"""Seconds without an answer after which a request probes, however few answers there were: replies
that go on for minutes would otherwise keep all others waiting."""

_PAUSES_BETWEEN = 8
"""A probe costs the pause that its refusal asks for: so many times that passes before the next."""


class LaneRequest:
    """The record that a lane keeps of one request, over all its attempts."""

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
        """True if its consumer may hold it up, and wants to send other requests meanwhile."""
        self.serial = 0
        """Counts the starts of the lane; of its own latest."""
        self.is_probe = False
        self.is_beyond = False
        """True if it started beyond the limit, for a consumer that may be waiting for it."""
        self.refusals = 0
        """The number of refusals that are its own: others started later, and were answered, or it
        had started beyond the limit."""
        self.backoff = 0.0
        """Seconds to wait before its next start, which its latest refusal cost it."""
        self._refused_after: int | None = None

    def note_refusal(self, latest_start: int, latest_answer: int) -> None:
        """Take note of a refusal, and of the latest requests that were started and answered."""
        last, self._refused_after = self._refused_after, latest_start
        if last is not None and not self.is_probe and latest_answer > last:
            self.refusals += 1


class Lane:
    """The requests to one endpoint.

    :param most: the number of requests that may run at once, at the most
    :param adaptive: False to keep the limit whatever the endpoint refuses
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
        """The number of requests that the endpoint is known to accept at once."""
        self.running = 0
        self.resumes = -inf
        """The end of the pause that the endpoint asked for, by the event loop's clock."""
        self._most = most
        self._adaptive = adaptive
        self._held = 0  # of those that run, how many may be held up by their consumers
        self._serial = self._latest_answer = self._latest_pause = self._latest_refusal = 0
        self._fruitless = 0  # pauses in a row without an answer in between
        self._probe: LaneRequest | None = None
        self._answers = 0  # since the limit changed, or the last probe
        self._unrefused = 0  # answers since the last refusal
        self._wait = 1  # answers before the next probe
        self._backoff = 0  # the latest wait after a refusal
        self._probe_from = -inf
        self._heard = -inf  # when the endpoint last answered or refused
        self._silence = _SHORTEST_SILENCE  # seconds since then, before the next probe

    def has_room_from(self, *, for_consumer: bool) -> float:
        """Return the time from which a request may start, apart from pauses.

        Infinite if it must wait for another request.

        :param for_consumer: True for a request that no consumer holds up. It may always start if
            consumers may hold up all others, because one of them may be waiting for it.
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
        """Count a request that starts."""
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
        """Count a request whose first text has come."""
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
        """Count a request that ended, in whatever way."""
        self.running -= 1
        self._held -= request.may_be_held
        if self._probe is request:
            self._probe = None

    def refused(
        self, request: LaneRequest, error: RateLimitError, retry: Retry, now: float
    ) -> bool:
        """Count a request that was refused, which has then ended.

        :return: True to ask again, at the lane's next start
        """
        was_probe = self._probe is request
        self._heard = now
        self.end(request)
        if not self._adaptive:
            if error.retry_after is not None:
                self._pause(now + min(error.retry_after, retry.max_wait))
            return True
        if request.is_beyond:  # it says nothing of the limit
            request.refusals += 1
            pause = retry.wait(request.refusals, error)
            if error.retry_after is None:
                request.backoff = pause
            else:
                self._pause(now + pause)
            return request.refusals < retry.attempts
        if was_probe:
            self._silence = min(2 * self._silence, _LONGEST_SILENCE)
        else:
            self.limit = max(1, min(self.limit, self.running))
            if self._probe is not None and self._probe.serial < request.serial:
                self._probe = None  # it has only taken the place of this one
        if request.serial > self._latest_refusal:  # else it started before that one
            self._latest_refusal = self._serial
            self._back_off()
        if error.retry_after is not None or not self.running:
            if request.serial > self._latest_pause:
                self._latest_pause = self._serial
                self._fruitless += 1
            pause = retry.wait(max(self._fruitless, 1), error)
            self._pause(now + pause)
            self._probe_from = self.resumes + _PAUSES_BETWEEN * pause
        request.note_refusal(self._serial, self._latest_answer)
        return not self.given_up(retry) and request.refusals < retry.attempts

    def _back_off(self) -> None:
        """Wait twice as long before the next probe, but after a while without a refusal."""
        longest = max(_LONGEST_WAIT, int(self.limit))
        again = 0 if self._unrefused > 2 * longest else 2 * self._backoff
        self._wait = self._backoff = min(max(again, int(self.limit)), longest)
        self._answers = self._unrefused = 0

    def given_up(self, retry: Retry) -> bool:
        """Return True if as many pauses in a row as there are attempts brought no answer."""
        return self._fruitless >= retry.attempts

    def _pause(self, until: float) -> None:
        self.resumes = max(self.resumes, until)
