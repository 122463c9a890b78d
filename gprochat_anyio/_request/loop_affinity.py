"""The process and the event loop that an object with connections belongs to."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import get_ident

from gprochat_anyio.transport._loops import EventLoop, current_loop


class LoopAffinity:
    """Remembers where an object was first used, and refuses its use elsewhere.

    :param what: how errors call the object
    """

    __slots__ = ("_loop", "_pid", "_thread", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._pid = self._thread = 0
        self._loop: EventLoop | None = None

    def check(self) -> EventLoop:
        """Return the event loop, which is that of the first use.

        :raises RuntimeError: If this is another process or another event loop.
        """
        loop = self._loop
        if loop is None:
            self._loop = loop = current_loop()
            self._pid, self._thread = os.getpid(), get_ident()
        elif self._pid != os.getpid():
            raise RuntimeError(
                f"this {self._what} was used before the process forked, and its connections are "
                "the parent's; make a new Client in the child"
            )
        elif not loop.is_running():
            raise RuntimeError(
                f"this {self._what} belongs to another event loop; make a Client for each loop"
            )
        return loop

    def check_thread(self) -> None:
        """Make sure that this is the thread of the first use, in a task or a callback.

        :raises RuntimeError: If it is another one.
        """
        if self._loop is not None and get_ident() != self._thread:
            raise RuntimeError(
                f"this {self._what} is for the tasks of its event loop; from another thread, call "
                "it by anyio.from_thread, or use a SyncClient"
            )

    def call_soon(self, function: Callable[[], None]) -> None:
        """Call a function for a finalizer, which may run at any point of the library's own code,
        and in any thread: in the event loop's next turn, or at once if that is not running here.
        Not in a forked child.
        """
        if self._loop is None or self._pid != os.getpid():
            return
        if self._thread == get_ident() and not self._loop.is_running():
            function()
        else:
            self._loop.call_soon(function)
