"""The client's end of a connection to a scripted site.

The site has no task. Sending data completes a request, and every read plays the script up to its
next bytes. Therefore the site needs no event loop of its own, only the reading task sleeps on a
virtual clock, and runs are reproducible.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Protocol

import anyio
import httptools
from anyio.lowlevel import EventLoopToken, checkpoint, current_token

from ._apis import dialect_of
from ._request_parser import RequestParser
from ._requests import Outcome, Request
from ._steps import Drop, Fail, Hang, Hold, Pause, Raw, Refuse, Say, Step, Stop


class ScriptSource(Protocol):
    """The interface of a site for its connections."""

    def ask(
        self, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[Request | None, Iterator[Step | Hold]]:
        """Record a request, and return it with the steps of its response. The request is `None` if
        no script replies to it."""
        ...

    def left(self, connection: SiteConnection) -> None:
        """Handle the client's closing of a connection."""
        ...

    def notify(self) -> None:
        """Wake the tasks that wait for a change of the site."""
        ...


class SiteConnection:
    """The client's end of a connection. One piece of a script is one read.

    :param site: The site, which provides the script of each request.
    """

    def __init__(self, site: ScriptSource) -> None:
        self.token: EventLoopToken = current_token()
        """The event loop of the connection."""
        self._site = site
        self._parser = RequestParser(self._ask)
        self._waiting: deque[tuple[Request | None, Iterator[Step | Hold]]] = deque()
        self._asked = anyio.Event()
        self._request: Request | None = None
        self._steps: Iterator[Step | Hold] | None = None
        self._step: Step | Hold | None = None  # begun, but not finished
        self._due = 0.0  # the time at which the last step ended, by the event loop's clock
        self._dialect = dialect_of(None)
        self._head_sent = self._whole = False
        self._rest = b""
        self._reading: anyio.CancelScope | None = None
        self._closed = False
        self._end: Drop | None = None

    async def send(self, item: bytes) -> None:
        await checkpoint()
        self._check_open()
        if self._end is not None:
            raise anyio.BrokenResourceError
        try:
            self._parser.feed(item)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._waiting.append((None, iter((Refuse(400), Drop()))))
            self._asked.set()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await checkpoint()
        self._check_open()
        if self._reading is not None:
            raise anyio.BusyResourceError("reading from")
        if not self._rest:
            self._reading = anyio.CancelScope()
            try:
                with self._reading:
                    self._rest = await self._next()
            finally:
                self._reading = None
            self._check_open()
        if not self._rest:
            raise self._ended()
        data, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return data

    def close(self) -> None:
        """Close the client's end immediately."""
        if not self._closed:
            self._closed = True
            self._finish_all("left")
            self.wake()
            self._site.left(self)

    def cut(self) -> None:
        """Close the site's end, because the site is closing."""
        self._end = Drop()
        self._finish_all("dropped")

    def wake(self) -> None:
        """Wake a waiting read, if any. Call this in the connection's event loop."""
        if self._reading is not None:
            self._reading.cancel()

    def _ask(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self._waiting.append(self._site.ask(path, headers, body))
        self._asked.set()

    async def _next(self) -> bytes:
        """Play the script up to its next bytes. Return `b""` if the connection ends instead."""
        data = b""
        while not data and self._end is None:
            if self._steps is None:
                await self._next_request()
                continue
            if self._step is None:
                self._step = next(self._steps, None)
            if self._step is None:
                data = self._finish()
            else:
                data = await self._play(self._step)
                self._step = None
        return data

    async def _next_request(self) -> None:
        if not self._waiting:
            self._asked = anyio.Event()
            await self._asked.wait()
        self._request, self._steps = self._waiting.popleft()
        self._due = anyio.current_time() if self._request is None else self._request.time
        self._dialect = dialect_of(self._request)
        self._head_sent = self._whole = False

    async def _play(self, step: Step | Hold) -> bytes:
        """Play a step to its end. After a cancellation, it is played again."""
        match step:
            case Say() | Raw() | Refuse() | Fail() | Stop():
                return self._send(step)
            case Pause():
                due = self._due + step.seconds
                await anyio.sleep_until(due)
                self._due = due
            case Hang():
                await anyio.sleep_forever()
            case Drop():
                self._end = step
                self._set_outcome("dropped")
            case _:
                assert not isinstance(step, Step)
                await step()
                self._due = anyio.current_time()
        return b""

    def _send(self, step: Say | Raw | Refuse | Fail | Stop) -> bytes:
        """Return the bytes of a step."""
        if isinstance(step, Say):
            return self._head() + self._dialect.say(step)
        self._whole = True
        if isinstance(step, Stop):
            data = self._head() + self._dialect.stop(step)
            self._set_outcome("complete")
            return data
        if isinstance(step, Raw):
            self._head_sent = True
            return step.data
        if isinstance(step, Refuse):
            self._set_outcome("refused")
            return self._dialect.refuse(step)
        self._set_outcome("failed")
        return self._dialect.fail(step, begun=self._head_sent)

    def _head(self) -> bytes:
        head = b"" if self._head_sent else self._dialect.head()
        self._head_sent = True
        return head

    def _finish(self) -> bytes:
        data = b"" if self._whole else self._send(Stop())
        self._steps = None
        self._set_outcome("complete")
        return data

    def _set_outcome(self, outcome: Outcome) -> None:
        self._mark(self._request, outcome)

    def _mark(self, request: Request | None, outcome: Outcome) -> None:
        """Set the outcome of a request, unless it has one."""
        if request is not None and request.outcome == "running":
            request.outcome = outcome
            self._site.notify()

    def _finish_all(self, outcome: Outcome) -> None:
        for request in (self._request, *(request for request, _ in self._waiting)):
            self._mark(request, outcome)

    def _check_open(self) -> None:
        if self._closed:
            raise anyio.ClosedResourceError

    def _ended(self) -> Exception:
        assert self._end is not None
        if self._end.reset:
            return anyio.BrokenResourceError("the scripted site reset the connection")
        return anyio.EndOfStream()
