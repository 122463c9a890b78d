"""The reactor, which watches all connections and deadlines of one event loop.

Plain function calls push incoming bytes from a socket to its receiver. No task waits for a
connection, and nothing on that path waits. The sockets are registered with the reactor's selector,
and the event loop watches only the selector's descriptor. A reactor exists while its event loop has
connections.
"""

from __future__ import annotations

import contextvars
import logging
import os
import selectors
import weakref
from collections.abc import Callable, Coroutine
from heapq import heapify, heappop, heappush
from math import inf
from time import monotonic
from typing import Any, Protocol

from anyio.lowlevel import RunVar

from ._loops import EventLoop, Signal, current_loop
from ._reader_tasks import ReaderTasks

DefaultSelector = selectors.DefaultSelector

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

_log = logging.getLogger("gprochat_anyio")

_TURN = 0.002  # seconds of reading before the event loop gets its turn
_FEW = 64  # minimum size of a heap that is worth compacting

# A strong reference to the reactor would keep its event loop alive, and with it the variable.
_current: RunVar[weakref.ref[Reactor]] = RunVar("gprochat_anyio reactor")


class Watched(Protocol):
    """An operation with a deadline, which may only move to a later time."""

    def due(self, now: float) -> float:
        """Return the current time of the deadline."""
        ...

    def look(self) -> None:
        """Process data that has already arrived, without waiting. It arrived in time."""
        ...

    def expire(self) -> None:
        """Fail the operation, because its deadline has passed."""
        ...


class Deadline:
    """An entry of the heap of deadlines, which is checked no later than `at`."""

    __slots__ = ("at", "watched")

    def __init__(self, at: float, watched: Watched) -> None:
        self.at: float = at
        self.watched: Watched | None = watched

    def __lt__(self, other: Deadline) -> bool:
        return self.at < other.at


def current_reactor() -> Reactor:
    """Return the running event loop's reactor. Create it if there is none."""
    found = _current.get(None)
    reactor = None if found is None else found()
    if reactor is None or reactor.closed or reactor.is_foreign:
        reactor = Reactor(current_loop())
        _current.set(weakref.ref(reactor))
    return reactor


class Reactor:
    """Watcher of one event loop's connections and deadlines. It runs while there are connections.

    Callbacks must not raise, except `KeyboardInterrupt`. Connections pass errors to their
    receivers.
    """

    def __init__(self, loop: EventLoop) -> None:
        self.clock: Callable[[], float] = loop.clock
        self.now: float = loop.clock()
        """The time of the latest event. Deadlines use it instead of reading the clock."""
        self.closed: bool = False
        self.signal: Callable[[], Signal] = loop.signal
        """Create a signal for one waiting task."""
        self._loop = loop
        self._pid = os.getpid()
        self._members = 0
        self._deadlines: list[Deadline] = []
        self._live = 0  # number of entries whose operation has not ended
        self._watched: dict[int, tuple[int, Callable[[int], None]]] = {}
        self._ready: list[tuple[selectors.SelectorKey, int]] = []
        self._selector: Any = DefaultSelector()
        fd: int | None = None
        if hasattr(self._selector, "fileno"):
            fd = self._selector.fileno()
        else:
            self._selector.close()
            self._selector = ReaderTasks(loop, self._dispatch)
        loop.start(fd, self.poll, self.expire)

    @property
    def is_foreign(self) -> bool:
        """True in a forked child, which shares the selector with its parent."""
        return self._pid != os.getpid()

    def join(self) -> None:
        """Add a connection, for which the reactor keeps running until `leave`."""
        self._members += 1

    def leave(self) -> None:
        """Remove a connection, and stop the reactor if it was the last one."""
        self._members -= 1
        if not self._members and not self.closed:
            self.closed = True
            self._ready.clear()
            if not self.is_foreign:
                self._loop.stop()
            self._selector.close()

    def spawn(
        self,
        function: Callable[[], Coroutine[Any, Any, None]],
        name: str,
        context: contextvars.Context | None = None,
    ) -> Callable[[], object]:
        """Start a background task; see `EventLoop.spawn`."""
        return self._loop.spawn(function, name, context)

    # Sockets

    def register(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Register a callback, which is called with the events that a descriptor is ready for.

        Readiness for reading may be spurious.
        """
        self._selector.register(fd, events, callback)
        self._watched[fd] = events, callback

    def watch(self, fd: int, before: int, events: int, callback: Callable[[int], None]) -> None:
        """Change the events of a descriptor.

        Without events it is unregistered, because the selector would still report errors and
        hang-ups.
        """
        if self.is_foreign:
            return
        if not events:
            del self._watched[fd]
            self._selector.unregister(fd)
        elif not before:
            self.register(fd, events, callback)
        else:
            self._watched[fd] = events, callback
            self._selector.modify(fd, events, callback)

    async def wait_writable(self, fd: int) -> None:
        """Wait until a socket is writable or has failed. Cancellation has no other effect."""
        signal = self.signal()
        writable = False

        def callback(_: int) -> None:
            nonlocal writable
            writable = True
            signal.set()

        self.join()
        try:
            self.register(fd, WRITE, callback)
            try:
                while not writable:
                    await signal.wait()
            finally:
                self.watch(fd, WRITE, 0, callback)
        finally:
            self.leave()

    def poll(self) -> None:
        """Read from sockets that are ready, for at most a few milliseconds.

        The remaining sockets are read in the next turn, before any that become ready later.
        """
        self.now = self.clock()
        if not self._ready and len(self._watched) == 1:
            ((events, callback),) = self._watched.values()
            if events == READ:  # the only socket is ready, or its read says otherwise
                callback(READ)
                return
        self._ready = ready = self._ready or self._selector.select(0)
        until = monotonic() + _TURN
        while ready:
            key, events = ready.pop()
            key.data(events)
            if monotonic() > until:
                break

    def _dispatch(self, callback: Callable[[int], None], events: int) -> None:
        self.now = self.clock()
        callback(events)

    def time(self) -> float:
        """Return the event loop's time, or the latest known time after it has ended."""
        if self.is_running():
            self.now = self.clock()
        return self.now

    def is_running(self) -> bool:
        """Return True if called within the event loop, in a task or a callback."""
        return self._loop.is_running()

    # Deadlines

    def add_deadline(self, at: float, watched: Watched) -> Deadline:
        """Call `watched.expire` when the time of `watched.due` has passed.

        :param at: A time of the event loop's clock that is no later than any later value of `due`.
        """
        entry = Deadline(at, watched)
        self._live += 1
        heappush(self._deadlines, entry)
        if self._deadlines[0] is entry:
            self._loop.arm(at)
        return entry

    def drop_deadline(self, entry: Deadline) -> None:
        """Remove the deadline of an operation that has ended."""
        if entry.watched is None:
            return
        entry.watched = None
        self._live -= 1
        heap = self._deadlines
        if not self._live:
            heap.clear()  # the timer stays, and will find no entry
        elif len(heap) > _FEW and self._live * 4 < len(heap):
            heap[:] = [kept for kept in heap if kept.watched is not None]
            heapify(heap)

    def expire(self) -> None:
        """Fail the operations whose deadlines have passed. Push back deadlines that have moved."""
        heap = self._deadlines
        self.now = now = self.clock()
        try:
            while heap and (heap[0].at <= now or heap[0].watched is None):
                entry = heappop(heap)
                if entry.watched is not None:
                    self._look_at(entry, entry.watched, now)
        finally:  # also if an interrupt is raised, the other deadlines stay
            if not self.closed:
                self._loop.arm(heap[0].at if heap else inf)

    def _look_at(self, entry: Deadline, watched: Watched, now: float) -> None:
        due = watched.due(now)
        if due <= now:
            watched.look()
            if entry.watched is None:  # the data that had arrived has ended the operation
                return
            due = watched.due(now)
        if due > now:
            entry.at = due
            heappush(self._deadlines, entry)
        else:
            self.drop_deadline(entry)
            try:
                watched.expire()
            except Exception:  # noqa: BLE001 - it fails this operation only
                _log.exception("a deadline was not reported because of a bug in gprochat_anyio")
