"""Opening a request with a hedge, which asks a second endpoint if the first one is slow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from gprochat_anyio._errors import GPROChatError
from gprochat_anyio._fanout.bare_task_group import BareTaskGroup, KeptFailures
from gprochat_anyio._redaction import strip_traceback
from gprochat_anyio._request.sinks import LEFT, TextSink

from .fleet_request import FleetRequest, Opened


class _RivalSink:
    """The sink of one of two rival replies. The first one to give text is connected to the real
    sink."""

    __slots__ = ("_opening", "_sink")

    def __init__(self, opening: HedgedOpening, sink: TextSink) -> None:
        self._opening = opening
        self._sink = sink

    def put(self, text: str) -> int:
        """Forward text. If the other reply was first, return `LEFT`, which closes this one."""
        return self._sink.put(text) if self._opening.is_won_by(self) else LEFT

    def end(self) -> None:
        """Forward the end, unless the other reply was first."""
        if self._opening.is_won_by(self):
            self._sink.end()


class HedgedOpening:
    """The opening of a request, and of its hedge if the first endpoint gives no text in time.

    :param hedge_after: Time until the hedge, in seconds.
    """

    def __init__(self, request: FleetRequest, sink: TextSink, hedge_after: float) -> None:
        self._request = request
        self._sink = sink
        self._hedge_after = hedge_after
        self._winner: _RivalSink | None = None
        self._opened: Opened | None = None
        self._running = 0
        self._changed = anyio.Event()
        self._failure: Exception | None = None
        self._failures = KeptFailures(self._fail)
        self._error: GPROChatError | None = (
            None  # of no endpoint; those are recorded by the request
        )

    def is_won_by(self, rival: _RivalSink) -> bool:
        """Return True if this reply is the first one to give text."""
        if self._winner is None:
            self._winner = rival
        return self._winner is rival

    async def run(self) -> Opened:
        """Return the reply that gives text first, and close the other one.

        Cancellation closes both.

        :raises GPROChatError: If neither gives text.
        """
        try:
            async with BareTaskGroup() as tasks:
                self._start(tasks, self._request.open)
                while not (self._request.has_started or self._is_over):
                    await self._wait()
                with anyio.move_on_after(self._hedge_after):
                    await self._until_over()
                if self._winner is None and not self._is_over:
                    self._start(tasks, self._request.open_hedge)
                await self._until_over()
        except BaseException:
            if self._opened is not None:
                await _drop(self._opened)
            raise
        if self._opened is None:
            if self._failure is not None:
                raise self._failure
            if self._error is not None and not self._request.has_failed:
                raise strip_traceback(self._error)
            self._request.fail()
        return self._opened

    def _start(
        self, tasks: BareTaskGroup, open_request: Callable[[TextSink], Awaitable[Opened | None]]
    ) -> None:
        self._running += 1
        rival = _RivalSink(self, self._sink)
        tasks.start_soon(self._try, rival, open_request, name="gprochat_anyio fleet")

    async def _try(
        self, rival: _RivalSink, open_request: Callable[[TextSink], Awaitable[Opened | None]]
    ) -> None:
        with self._failures:
            try:
                opened = await open_request(rival)
            except GPROChatError as error:
                self._error = error
            else:
                if opened is not None:
                    await self._settle(rival, opened)
            self._running -= 1
            self._changed.set()

    async def _settle(self, rival: _RivalSink, opened: Opened) -> None:
        if self.is_won_by(rival):
            self._opened = opened
        else:
            await _drop(opened)

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._changed.set()

    async def _until_over(self) -> None:
        while not self._is_over:
            await self._wait()

    async def _wait(self) -> None:
        self._changed = anyio.Event()
        self._request.on_start = self._changed.set
        await self._changed.wait()

    @property
    def _is_over(self) -> bool:
        if self._opened is not None or self._failure is not None or not self._running:
            return True
        return self._request.is_refused


async def _drop(opened: Opened) -> None:
    reply, _ = opened
    try:
        reply.end()
    finally:  # observers may raise
        await reply.wait_closed()
