"""A replacement for a selector on Windows, where selectors have no descriptor.

One task waits for each socket. The interface is the part of `selectors.BaseSelector` that the
reactor uses.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from ._loops import EventLoop

_Callback = Callable[[int], None]


class ReaderTasks:
    """A selector that runs one background task per socket and direction.

    :param dispatch: Called with a registered callback and its event.
    """

    def __init__(self, loop: EventLoop, dispatch: Callable[[_Callback, int], None]) -> None:
        self._loop = loop
        self._dispatch = dispatch
        self._waits: dict[int, list[_Wait]] = {}

    def register(self, fd: int, events: int, data: _Callback) -> None:
        """Start a task for each event."""
        self._waits[fd] = [
            _Wait(self._loop, fd, event, partial(self._dispatch, data))
            for event in (EVENT_READ, EVENT_WRITE)
            if events & event
        ]

    def modify(self, fd: int, events: int, data: _Callback) -> None:
        """Replace the events that are waited for."""
        self.unregister(fd)
        self.register(fd, events, data)

    def unregister(self, fd: int) -> None:
        """Stop waiting. When this returns, nothing uses the descriptor any more."""
        for wait in self._waits.pop(fd):
            wait.cancel()
        if self._loop.is_running():  # otherwise no task waits any more
            self._loop.notify_closing(fd)

    def close(self) -> None:
        """Break the reference cycle with the reactor. All sockets have been unregistered."""
        del self._dispatch


class _Wait:
    def __init__(self, loop: EventLoop, fd: int, event: int, call: _Callback) -> None:
        self._cancelled = False
        self._wait = partial(
            anyio.wait_readable if event == EVENT_READ else anyio.wait_writable, fd
        )
        self._call = partial(call, event)
        self._cancel_task = loop.spawn(self._run, "gprochat_anyio reader")

    def cancel(self) -> None:
        self._cancelled = True
        self._cancel_task()
        del self._cancel_task, self._call  # the cancellation's traceback refers to this

    async def _run(self) -> None:
        while not self._cancelled:
            await self._wait()
            if not self._cancelled:
                self._call()
