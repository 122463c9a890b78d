"""A response while it arrives: its deadlines, its refusals, and how it ends.

It is fed by the reactor, through an exchange; one task at a time waits for it. Every way it can end
is an attribute, `error`, that the waiting task raises: nothing raises in the reactor.
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
"""Statuses that mean what they say, with a `Retry-After`; of others the body tells the reason."""


class Head(Protocol):
    """The head of a response."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> list[tuple[bytes, bytes]]: ...

    @property
    def framing(self) -> str: ...


class ResponseSource(Protocol):
    """An exchange, over the library's own connections or by another transport."""

    @property
    def proxy(self) -> Proxy | None:
        """The proxy that reads the request itself, and may answer it."""
        ...

    @property
    def paused(self) -> bool: ...

    def look(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def close(self) -> None: ...

    async def wait_closed(self) -> None:
        """Wait, for at most a second, until nothing of it runs in the background."""
        ...


class IncomingResponse(ABC):
    """What comes back for one request that is sent.

    :param deadlines: of the request; they span its attempts
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
        self.deadlines = deadlines
        self.over = False
        """True once nothing more comes."""
        self.error: BaseException | None = None
        """Why it is not complete: one of the library's errors, or a foreign transport's defect."""
        self.connect = 0.0
        """Seconds that the connection took; 0.0 if it was there already."""
        self.on_connected: Callable[[float | None], None] | None = None
        """Is told once how long the connection took, or that it was there; may raise."""
        self.sent_at = 0.0
        """When the first byte was sent, by the event loop's clock."""
        self.ended_at: float | None = None
        self._exchange: ResponseSource | None = None
        self.headed = False
        """True once the head has come."""
        self._reactor: Reactor
        self._entry: Deadline | None = None
        self._refusal: bytes | None = None  # the body of an error response, as far as it has come
        self._status_headers: tuple[int, dict[str, str]]

    def begin(self, exchange: ResponseSource, reactor: Reactor) -> None:
        """Take an exchange whose request is about to be sent, and start its deadlines."""
        self._exchange = exchange
        self._reactor = reactor
        self._signal = reactor.signal()
        self.enter("first_chunk")

    def enter(self, phase: PhaseWithLimit) -> None:
        """Begin a phase of the opening."""
        now = self._reactor.clock()
        if phase == "first_chunk":
            self.sent_at = now
        self.deadlines.start(phase, now)
        self._arm()

    def _arm(self) -> None:
        """Have the next deadline enforced, which may have become an earlier one."""
        earliest = self.deadlines.earliest()
        if self._entry is not None:
            if self._entry.at <= earliest:
                return
            self._reactor.drop_deadline(self._entry)
        if earliest < inf:
            self._entry = self._reactor.add_deadline(earliest, self)

    def connected(self, seconds: float | None) -> None:
        """Take note of how long the connection took; None if it was there already."""
        self.connect = seconds or 0.0
        if self.on_connected is not None:
            self.on_connected(seconds)

    async def wait(self) -> None:
        """Wait until something has arrived, or the end. Cancelled, it loses nothing."""
        await self._signal.wait()

    async def wait_until_over(self) -> None:
        """Wait for the end. Whatever interrupts that, the response is closed."""
        try:
            while not self.over:
                await self._signal.wait()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let the connection go, in any task or callback of the event loop; repeatedly."""
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
        if self._reactor.is_running():  # or nobody waits any more
            self._signal.set()
        self._after_closing()

    async def wait_closed(self) -> None:
        """Wait, for at most a second, for what a transport of the caller's still does to close."""
        if self._exchange is not None:
            await self._exchange.wait_closed()

    # By the exchange

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
            self._fail(failure)  # the application's own: the waiting task raises it
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

    # By the reactor

    def due(self, now: float) -> float:
        assert self._exchange is not None
        if self._exchange.paused:
            self.deadlines.since = now  # the consumer is behind: `idle` stands still
        return self.deadlines.due()

    def look(self) -> None:
        assert self._exchange is not None
        self._exchange.look()

    def expire(self) -> None:
        self._fail(self.deadlines.error(self._reactor.now))

    # By the response's kind

    @abstractmethod
    def _check(self, response: Head) -> SiteError | None:
        """Return what is wrong with a head, if anything."""

    @abstractmethod
    def _read_error(self, status: int, headers: dict[str, str], body: bytes) -> SiteError:
        """Return the error that a response with a status other than 200 stands for."""

    @abstractmethod
    def _take(self, data: bytes) -> None:
        """Take some of the body of a success."""

    @abstractmethod
    def _finish(self) -> None:
        """Take note that the body of a success is complete."""

    @abstractmethod
    def _after_closing(self) -> None:
        """Take note that nothing more comes."""

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
