"""A shard's side of the leases: a thread that renews them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Final, Protocol, Self, TypeVar

import anyio

from gprochat_anyio import Client, Fleet
from gprochat_anyio._request.leased_limiter import LeasedLimiter
from gprochat_anyio._request.request_events import Observed
from gprochat_anyio.transport._loops import EventLoop, current_loop

from ._coordinator import SAME_PAUSE, Lease, Report
from ._lease_book import RENEW_EVERY, LeasedLimits
from ._summary import BatchSummary

_T = TypeVar("_T")

_CHECK_EVERY: Final = 0.1
"""Time between two checks whether the shard's event loop has ended, in seconds."""


class _LoopEndedError(Exception):
    """The shard's event loop has ended."""


class Lessor(Protocol):
    """Connection to the coordinator, for a thread."""

    def renew(self, report: Report) -> Lease | None:
        """Return the renewed lease, or `None` if the last one ended before a reply. This blocks.

        :raises Exception: If the coordinator will never reply.
        """
        ...

    def wait(self, version: int, seconds: float) -> None:
        """Block for that time, or until the coordinator's version changes."""
        ...

    def pause(self, endpoint: Observed, seconds: float) -> None:
        """Report a pause, without waiting."""
        ...

    def release(self) -> None:
        """Return the lease, without waiting."""
        ...


class LeaseKeeper:
    """Context manager that leases the limits of one shard's limiter.

    :param most: Maximum number of concurrent requests of the shard.
    :param has_rate: Whether the rate of starts is limited.
    :param adaptive: See `Limiter`.
    :raises Exception: On leaving the block, if the coordinator will never reply.
    """

    def __init__(self, lessor: Lessor, *, most: int, has_rate: bool, adaptive: bool = True) -> None:
        self.limiter = LeasedLimiter(
            max_at_once=most,
            has_rate=has_rate,
            adaptive=adaptive,
            on_retry_after=self._report_pause,
        )
        self._lessor = lessor
        self._summary: BatchSummary | None = None
        self._held: LeasedLimits | None = None
        self._stopped = False
        self._paused: dict[Observed, float] = {}
        self._ended = threading.Event()
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._failure is not None and exc_val is None:
            raise self._failure

    def client_of(self, make_client: Callable[[], Client | Fleet]) -> Client | Fleet:
        """Return a client, and start renewing. Call this in the shard's event loop."""
        client = make_client()
        threading.Thread(
            target=self._renew, args=(current_loop(),), name="gprochat_anyio leases", daemon=True
        ).start()
        return client

    def set_summary(self, summary: BatchSummary) -> None:
        """Keep the shard's summary, for the next report."""
        self._summary = replace(summary, latency=None, first_chunk=None)  # a few hundred bytes

    def is_stopped(self) -> bool:
        """Return True once the shard must not start any more prompts."""
        return self._stopped

    def _renew(self, loop: EventLoop) -> None:
        try:
            while not self._ended.is_set():
                lease = self._lessor.renew(self._call(loop, self._report))
                self._call(loop, partial(self._apply, lease))
                if lease is None:
                    self._ended.wait(RENEW_EVERY)
                else:
                    self._lessor.wait(lease.version, RENEW_EVERY)
        except _LoopEndedError:
            pass
        except Exception as error:  # noqa: BLE001 - raised at the end of the block
            self._failure = error
            self._stopped = True
        finally:
            self._lessor.release()  # in this thread, so that no renewal follows it

    def _call(self, loop: EventLoop, function: Callable[[], _T]) -> _T:
        """Call a function in the shard's event loop, and return its result.

        `anyio.from_thread.run_sync` would wait forever if an asyncio loop ends before the call.

        :raises _LoopEndedError: If the event loop has ended.
        """
        future: Future[_T] = Future()

        def call() -> None:
            try:
                future.set_result(function())
            except Exception as error:  # noqa: BLE001 - raised in the other thread
                future.set_exception(error)

        loop.call_soon(call)
        while not (future.done() or self._ended.is_set()):
            wait([future], _CHECK_EVERY)
        if not future.done():
            raise _LoopEndedError
        return future.result()

    def _report(self) -> Report:
        return Report(self.limiter.demand, self._held, self._summary)

    def _apply(self, lease: Lease | None) -> None:
        if lease is None:
            self._held = LeasedLimits()
        else:
            self._held = lease.limits
            self._stopped = lease.stop
            now = anyio.current_time()
            for endpoint, seconds in lease.pauses.items():
                self._paused[endpoint] = now + seconds
                self.limiter.pause(endpoint, seconds)
        self.limiter.lease(*self._held)

    def _report_pause(self, endpoint: Observed, seconds: float) -> None:
        until = anyio.current_time() + seconds
        if until > self._paused.get(endpoint, until - seconds) + SAME_PAUSE:
            self._paused[endpoint] = until
            self._lessor.pause(endpoint, seconds)
