"""An endpoint of a fleet, with its load and its state: open, paused or ejected."""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, Literal

from gprochat_anyio._errors import GPROChatError
from gprochat_anyio._request.chat_client import opener_of
from gprochat_anyio._request.endpoint import Endpoint
from gprochat_anyio._request.incoming import IncomingReply

from .faults import Fault, fault_of
from .first_attempt import FirstAttempt

if TYPE_CHECKING:
    from gprochat_anyio._client import Client

_LONGEST: Final = 10
"""Maximum duration of an ejection, as a multiple of `eject_for`."""


@dataclass(frozen=True, slots=True)
class EndpointState:
    """A snapshot of an endpoint's state."""

    client: Client
    """The endpoint's client."""
    state: Literal["open", "paused", "ejected"]
    """The state. A rate limit pauses an endpoint, and failures eject it."""
    until: float | None
    """The end of the pause or the ejection, by the event loop's clock. After an ejection, the next
    prompt serves as the probe, and the endpoint stays ejected until the probe succeeds."""
    error: GPROChatError | None
    """The last failure, or `None`."""
    open_replies: int
    """Number of the endpoint's running requests and open replies."""


class Member:
    """A fleet's record of one endpoint.

    :param eject_after: Number of consecutive failures that eject it.
    :param eject_for: Duration of the first ejection, in seconds.
    """

    __slots__ = (
        "_eject_after",
        "_eject_for",
        "_ejected_at",
        "_ejected_until",
        "_error",
        "_failures",
        "_is_probed",
        "_latest_failure",
        "_refusals",
        "_row",
        "_started",
        "available_at",
        "client",
        "ejections",
        "endpoint",
        "is_ejected",
        "load",
        "paused_until",
        "retry",
    )

    def __init__(self, client: Client, *, eject_after: int, eject_for: float) -> None:
        self.client: Client = client
        self.endpoint: Endpoint = opener_of(client)
        self.retry: FirstAttempt = FirstAttempt.of(self.endpoint.retry)
        self.load: int = 0
        """Number of running requests and open replies."""
        self.available_at: float = -inf
        """The time from which it may be used; infinite while a probe is running."""
        self.paused_until: float = -inf
        """The end of the pause that a rate limit requested."""
        self.is_ejected: bool = False
        """True from an ejection until a request succeeds."""
        self.ejections: int = 0
        """Number of ejections so far."""
        self._eject_after = eject_after
        self._eject_for = eject_for
        self._error: GPROChatError | None = None
        self._started = 0  # number of requests so far
        self._latest_failure = 0  # number of the latest request that failed
        self._failures = 0  # consecutive
        self._refusals = 0  # consecutive, by a rate limit
        self._ejected_at = 0.0
        self._ejected_until: float | None = None
        self._row = 0  # ejections without a complete reply in between
        self._is_probed = False

    def is_paused(self, now: float) -> bool:
        """Return True if a rate limit pauses the endpoint at this time."""
        return self.paused_until > now

    def state(self, now: float) -> EndpointState:
        """Return the state at this time."""
        state: Literal["open", "paused", "ejected"] = "open"
        until = None
        if self._ejected_until is not None:
            state, until = "ejected", self._ejected_until
        elif self.is_paused(now):
            state, until = "paused", self.paused_until
        return EndpointState(self.client, state, until, self._error, self.load)

    def begin(self, now: float) -> MemberRequest:
        """Record the start of a request. After an ejection, it is the probe."""
        self.load += 1
        self._started += 1
        until = self._ejected_until
        is_probe = until is not None and until <= now and not self._is_probed
        if is_probe:
            self._is_probed = True
            self._update()
        return MemberRequest(self, self._started, is_probe=is_probe)

    def end_probe(self) -> None:
        """End the probe, so that another prompt can be the next one."""
        self._is_probed = False
        self._update()

    def answered(self) -> None:
        """Record the first text of a reply, which ends an ejection."""
        if self._ejected_until is not None:
            now = self.endpoint.check_usable()
            with suppress(Exception):  # the reply is already open
                self.endpoint.observers.recovered(now - self._ejected_at)
            self._ejected_until = None
            self.is_ejected = self._is_probed = False
            self._failures = (
                self._eject_after - 1
            )  # the next failure ejects it, also within a reply
            self._update()

    def succeeded(self, number: int) -> None:
        """Record a complete reply, unless a later request has failed."""
        if number > self._latest_failure:
            self._failures = self._refusals = self._row = 0

    def failed(
        self, error: GPROChatError, fault: Fault, now: float, number: int, *, was_probe: bool
    ) -> None:
        """Record a failure."""
        self._error = _kept(error)
        self._latest_failure = max(self._latest_failure, number)
        if self._ejected_until is not None:
            if was_probe:
                self._eject(error, now)
            return
        self._failures += 1
        if fault is Fault.KEY or self._failures >= self._eject_after:
            self._eject(error, now)

    def pause(self, error: GPROChatError, now: float, *, is_limited: bool) -> None:
        """Record the pause that a rate limit requests.

        :param is_limited: True if an adaptive limiter handles refusals without a `Retry-After`.
        """
        self._error = _kept(error)
        retry = self.endpoint.retry
        asked = getattr(error, "retry_after", None)
        if asked is not None:
            wait = min(asked, retry.max_wait)
        elif is_limited:
            return
        else:
            self._refusals += 1
            wait = retry.wait(self._refusals, error)
        self.paused_until = max(self.paused_until, now + wait)
        self._update()

    def _eject(self, error: GPROChatError, now: float) -> None:
        seconds = self._eject_for * min(2**self._row, _LONGEST)
        self._row += 1
        self.ejections += 1
        if self._ejected_until is None:
            self._ejected_at = now
        self._ejected_until = now + seconds
        self.is_ejected = True
        self._is_probed = False
        self._update()
        with suppress(Exception):  # the reactor may be the caller, where nothing may raise
            self.endpoint.observers.ejected(error, seconds)

    def _update(self) -> None:
        ejected = -inf if self._ejected_until is None else self._ejected_until
        self.available_at = inf if self._is_probed else max(ejected, self.paused_until)


class MemberRequest:
    """One request to an endpoint, whose end is recorded for the endpoint.

    :param number: The number of the request, among those to this endpoint.
    """

    __slots__ = ("_ejections", "_is_probe", "_member", "_number")

    def __init__(self, member: Member, number: int, *, is_probe: bool) -> None:
        self._member = member
        self._number = number
        self._ejections = member.ejections
        self._is_probe = is_probe

    def answered(self) -> None:
        """Record the first text."""
        if self._member.is_ejected and self._tells:
            self._end_probe()
            self._member.answered()

    def ended(self, reply: IncomingReply) -> None:
        """Record the end of a reply, after its first text."""
        member = self._member
        member.load -= 1
        if not self._tells:
            return
        error = reply.error
        if error is None:  # complete, or abandoned by the consumer
            member.succeeded(self._number)
        elif isinstance(error, GPROChatError) and fault_of(error) is Fault.ENDPOINT:
            now = 0.0 if reply.ended_at is None else reply.ended_at
            member.failed(error, Fault.ENDPOINT, now, self._number, was_probe=False)

    def failed(self, error: GPROChatError, now: float, *, is_limited: bool) -> None:
        """Record a failure before the first text."""
        member = self._member
        member.load -= 1
        fault = fault_of(error)
        if fault is Fault.RATE_LIMIT or getattr(error, "retry_after", None) is not None:
            member.pause(error, now, is_limited=is_limited)
        if not self._tells:
            return
        if fault is Fault.ENDPOINT or fault is Fault.KEY:
            member.failed(error, fault, now, self._number, was_probe=self._is_probe)
            return
        self._end_probe()
        if fault is Fault.PROMPT or fault is Fault.RATE_LIMIT:  # the endpoint works, but refuses
            member.answered()
        if fault is Fault.PROMPT:
            member.succeeded(self._number)

    def released(self) -> None:
        """Release a request that was cancelled, which says nothing about the endpoint."""
        self._member.load -= 1
        if self._tells:
            self._end_probe()

    @property
    def _tells(self) -> bool:
        """True unless the endpoint was ejected after this request had started."""
        return self._ejections == self._member.ejections

    def _end_probe(self) -> None:
        if self._is_probe:
            self._is_probe = False
            self._member.end_probe()


def _kept(error: GPROChatError) -> GPROChatError:
    """Return a copy of an error, without the traceback and the notes that the original will get."""
    return copy.copy(error)
