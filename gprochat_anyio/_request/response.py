"""Incoming responses: their deadlines, errors and ends.

The reactor feeds a response through an exchange, and one task at a time waits for it. A failure is
stored in the attribute `error`, for the waiting task to raise. Nothing raises in the reactor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import inf
from typing import Protocol

from gprochat_anyio._errors import (
    ReplyInterruptedError,
    SiteError,
    UnexpectedResponseError,
)
from gprochat_anyio._wire.error_responses import ERROR_BODY_LIMIT
from gprochat_anyio.transport._failures import TransportFailure, Unreadable
from gprochat_anyio.transport._reactor import Deadline, Reactor
from gprochat_anyio.transport._target import Proxy

from .deadlines import Deadlines, PhaseWithLimit
from .failed_response import error_of, fields_of

_SAID_BY_THE_HEAD = frozenset({429, 502, 503, 504})
"""Statuses that are final with a `Retry-After`. For all others, the body has the reason."""


class Head(Protocol):
    """The head of a response."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> list[tuple[bytes, bytes]]: ...

    @property
    def framing(self) -> str: ...


class ResponseSource(Protocol):
    """An exchange, over the library's own transport or another one."""

    @property
    def proxy(self) -> Proxy | None:
        """The proxy that forwards the request, and may respond to it."""
        ...

    @property
    def paused(self) -> bool: ...

    def look(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def close(self) -> None: ...

    async def wait_closed(self) -> None:
        """Wait for the background task to end, for at most a second."""
        ...


class IncomingResponse(ABC):
    """The response to one attempt of a request.

    :param deadlines: The request's deadlines, which span its attempts.
    """

    __slots__ = (
        "__weakref__",
        "_entry",
        "_exchange",
        "_reactor",
        "_refusal",
        "_signal",
        "_status_headers",
        "connect",
        "deadlines",
        "ended_at",
        "error",
        "headed",
        "on_connected",
        "over",
        "sent_at",
    )

    def __init__(self, deadlines: Deadlines) -> None:
        self.deadlines: Deadlines = deadlines
        self.over: bool = False
        """True once the response has ended or failed."""
        self.error: BaseException | None = None
        """The failure: an error of the library, or an unexpected exception of a foreign
        transport."""
        self.connect: float = 0.0
        """Time that connecting took, in seconds. 0.0 for a reused connection."""
        self.on_connected: Callable[[float | None], None] | None = None
        """Called once with the seconds that connecting took, or `None` for a reused connection. It
        may raise."""
        self.sent_at: float = 0.0
        """The time at which the first byte was sent, by the event loop's clock."""
        self.ended_at: float | None = None
        self._exchange: ResponseSource | None = None
        self.headed: bool = False
        """True once the head has arrived."""
        self._reactor: Reactor
        self._entry: Deadline | None = None
        self._refusal: bytes | None = None  # the received part of an error response's body
        self._status_headers: tuple[int, dict[str, str]]

    def begin(self, exchange: ResponseSource, reactor: Reactor) -> None:
        """Attach an exchange whose request is about to be sent, and start the deadlines."""
        self._exchange = exchange
        self._reactor = reactor
        self._signal = reactor.signal()
        self.enter("first_chunk")

    def enter(self, phase: PhaseWithLimit) -> None:
        """Start a phase of the opening."""
        now = self._reactor.clock()
        if phase == "first_chunk":
            self.sent_at = now
        self.deadlines.start(phase, now)
        self._arm()

    def _arm(self) -> None:
        """Register the next deadline with the reactor, as it may have become earlier."""
        earliest = self.deadlines.earliest()
        if self._entry is not None:
            if self._entry.at <= earliest:
                return
            self._reactor.drop_deadline(self._entry)
        if earliest < inf:
            self._entry = self._reactor.add_deadline(earliest, self)

    def connected(self, seconds: float | None) -> None:
        """Record the seconds that connecting took. `None` for a reused connection."""
        self.connect = seconds or 0.0
        if self.on_connected is not None:
            self.on_connected(seconds)

    async def wait(self) -> None:
        """Wait until data has arrived, or for the end. Cancellation loses no data."""
        await self._signal.wait()

    async def wait_until_over(self) -> None:
        """Wait for the end. An exception or cancellation closes the response."""
        try:
            while not self.over:
                await self._signal.wait()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the connection. Safe in any task or callback of the event loop, and
        repeatedly."""
        if self.over:
            return
        assert self._exchange is not None
        self.over = True
        try:
            self._exchange.close()
        finally:
            self._end()

    def _end(self) -> None:
        self.ended_at = self._reactor.time()
        if self._entry is not None:
            self._reactor.drop_deadline(self._entry)
        if self._reactor.is_running():  # otherwise no task waits any more
            self._signal.set()
        self._after_closing()

    async def wait_closed(self) -> None:
        """Wait until the caller's transport has closed its resources, for at most a second."""
        if self._exchange is not None:
            await self._exchange.wait_closed()

    # Called by the exchange

    def on_head(self, response: Head) -> None:
        assert self._exchange is not None
        self.headed = True
        proxy = self._exchange.proxy
        if proxy is not None and response.status == 407:
            from gprochat_anyio.transport._proxies import proxy_refusal  # noqa: PLC0415

            self._fail(error_of(proxy_refusal(proxy)))
            return
        refused = self._check(response)
        if refused is not None:
            self._fail(refused)
        elif response.status != 200:
            self._refusal = b""
            self._status_headers = response.status, fields_of(response.headers)

    def on_body(self, data: bytes) -> None:
        if self._refusal is None:
            self._take(data)
            return
        self._refusal += data
        if len(self._refusal) >= ERROR_BODY_LIMIT:
            self._refuse()

    def on_end(self) -> None:
        if self._refusal is None:
            self._finish()
        else:
            self._refuse()

    def on_failure(self, failure: BaseException) -> None:
        if not isinstance(failure, TransportFailure):
            self._fail(failure)  # an exception of the application, for the waiting task to raise
        elif isinstance(failure, Unreadable):
            self._fail(UnexpectedResponseError(str(failure)))
        elif self._refusal is not None:
            status, _ = self._status_headers
            if status in _SAID_BY_THE_HEAD:
                self._refusal = b""
                self._refuse()
            else:
                self._fail(ReplyInterruptedError(f"{failure}; ask again"))
        else:
            self._break_off(failure)

    # Called by the reactor

    def due(self, now: float) -> float:
        assert self._exchange is not None
        if self._exchange.paused:
            self.deadlines.since = now  # `idle` does not count while the consumer is behind
        return self.deadlines.due()

    def look(self) -> None:
        assert self._exchange is not None
        self._exchange.look()

    def expire(self) -> None:
        self._fail(self.deadlines.error(self._reactor.now))

    # Implemented by subclasses

    @abstractmethod
    def _check(self, response: Head) -> SiteError | None:
        """Return the error that a head indicates, or `None`."""

    @abstractmethod
    def _read_error(self, status: int, headers: dict[str, str], body: bytes) -> SiteError:
        """Return the error for a response with a status other than 200."""

    @abstractmethod
    def _take(self, data: bytes) -> None:
        """Process a piece of a successful response's body."""

    @abstractmethod
    def _finish(self) -> None:
        """Process the end of a successful response's body."""

    @abstractmethod
    def _after_closing(self) -> None:
        """Clean up after the response has ended or failed."""

    def _break_off(self, failure: TransportFailure) -> None:
        self._fail(error_of(failure))

    def _refuse(self) -> None:
        assert self._refusal is not None
        status, headers = self._status_headers
        self._fail(self._read_error(status, headers, self._refusal[:ERROR_BODY_LIMIT]))

    def _fail(self, error: BaseException) -> None:
        if not self.over:
            self.error = error
            self.close()
