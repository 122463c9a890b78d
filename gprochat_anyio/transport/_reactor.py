"""The reactor: one per event loop, it watches every connection and every deadline.

Incoming bytes are pushed from the socket to whoever receives them by plain calls; no task waits for
a connection, and nothing on that path waits. The sockets live in a selector of the reactor's own,
whose descriptor is the only one that the event loop watches. It exists from the first connection of
its loop to the last.
"""

from __future__ import annotations

import logging
import os
import selectors
import weakref
from collections.abc import Callable
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

_TURN = 0.002  # seconds of reading, after which the event loop gets its turn
_FEW = 64  # entries of the heap that are not worth clearing up

# weak: a value that refers to its event loop would keep both
_current: RunVar[weakref.ref[Reactor]] = RunVar("gprochat_anyio reactor")


class Watched(Protocol):
    """An operation with a deadline that may move, but only to a later time."""

    def due(self, now: float) -> float:
        """Return the time of the deadline, as things stand."""
        ...

    def look(self) -> None:
        """Take in what has arrived, without waiting: it is in time."""
        ...

    def expire(self) -> None:
        """Fail, because the deadline has passed."""
        ...


class Deadline:
    """An entry of the heap: looked at no later than `at`."""

    __slots__ = ("at", "watched")

    def __init__(self, at: float, watched: Watched) -> None:
        self.at = at
        self.watched: Watched | None = watched

    def __lt__(self, other: Deadline) -> bool:
        return self.at < other.at


def current_reactor() -> Reactor:
    """Return the running event loop's reactor, a new one if there is none."""
    found = _current.get(None)
    reactor = None if found is None else found()
    if reactor is None or reactor.closed or reactor.is_foreign:
        reactor = Reactor(current_loop())
        _current.set(weakref.ref(reactor))
    return reactor


class Reactor:
    """Watches connections and deadlines for as long as there are any of the former.

    Nothing that it calls may raise but `KeyboardInterrupt`: connections fail their own receivers.
    """

    def __init__(self, loop: EventLoop) -> None:
        self.clock: Callable[[], float] = loop.clock
        self.now = loop.clock()
        """When the latest event was fetched: what a read costs for its deadline."""
        self.closed = False
        self.spawn = loop.spawn
        """Start a background task; see `EventLoop.spawn`."""
        self.signal: Callable[[], Signal] = loop.signal
        """Make a signal for one waiting task."""
        self._loop = loop
        self._pid = os.getpid()
        self._members = 0
        self._deadlines: list[Deadline] = []
        self._live = 0  # entries whose operation has not ended
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
        """Keep the reactor running, for a connection; `leave` ends that."""
        self._members += 1

    def leave(self) -> None:
        """Stop the reactor if that was its last connection."""
        self._members -= 1
        if not self._members and not self.closed:
            self.closed = True
            self._ready.clear()
            if not self.is_foreign:
                self._loop.stop()
            self._selector.close()

    # Sockets

    def register(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Have a callback called with the events that a descriptor is ready for.

        It may turn out not to be ready for reading.
        """
        self._selector.register(fd, events, callback)
        self._watched[fd] = events, callback

    def watch(self, fd: int, before: int, events: int, callback: Callable[[int], None]) -> None:
        """Change the events of a descriptor.

        With none it leaves the selector, which would go on reporting errors and hang-ups.
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
        """Wait until a socket is writable, or has failed. Cancelled, it has no effect."""
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

        The rest is read in the next turn, before anything that became ready since.
        """
        self.now = self.clock()
        if not self._ready and len(self._watched) == 1:
            ((events, callback),) = self._watched.values()
            if events == READ:  # it is this one, and its read tells the rest
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
        """Return the time; once the event loop has ended, the latest time that is known."""
        if self.is_running():
            self.now = self.clock()
        return self.now

    def is_running(self) -> bool:
        """Return True within the event loop, in a task or a callback."""
        return self._loop.is_running()

    # Deadlines

    def add_deadline(self, at: float, watched: Watched) -> Deadline:
        """Have `watched.expire` called once what its `due` says has passed.

        :param at: by the event loop's clock, no later than any deadline to come
        """
        entry = Deadline(at, watched)
        self._live += 1
        heappush(self._deadlines, entry)
        if self._deadlines[0] is entry:
            self._loop.arm(at)
        return entry

    def drop_deadline(self, entry: Deadline) -> None:
        """Forget a deadline, for an operation that has ended."""
        if entry.watched is None:
            return
        entry.watched = None
        self._live -= 1
        heap = self._deadlines
        if not self._live:
            heap.clear()  # the timer stays: it finds nothing
        elif len(heap) > _FEW and self._live * 4 < len(heap):
            heap[:] = [kept for kept in heap if kept.watched is not None]
            heapify(heap)

    def expire(self) -> None:
        """Fail what is overdue. Most deadlines have only moved on, and go back into the heap."""
        heap = self._deadlines
        self.now = now = self.clock()
        try:
            while heap and (heap[0].at <= now or heap[0].watched is None):
                entry = heappop(heap)
                if entry.watched is not None:
                    self._look_at(entry, entry.watched, now)
        finally:  # whatever is raised, the others keep their deadlines
            if not self.closed:
                self._loop.arm(heap[0].at if heap else inf)

    def _look_at(self, entry: Deadline, watched: Watched, now: float) -> None:
        due = watched.due(now)
        if due <= now:
            watched.look()
            if entry.watched is None:  # what had arrived has ended it
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
                _log.exception("a deadline was not told, by a defect of gprochat_anyio")
