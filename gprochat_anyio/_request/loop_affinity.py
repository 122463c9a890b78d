"""The process and the event loop to which an object with connections belongs."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import get_ident

from gprochat_anyio.transport._loops import EventLoop, current_loop


class LoopAffinity:
    """The process and event loop of an object's first use. Use elsewhere is rejected.

    :param what: The object's name in errors.
    """

    __slots__ = ("_loop", "_pid", "_thread", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._pid = self._thread = 0
        self._loop: EventLoop | None = None

    def check(self) -> EventLoop:
        """Return the event loop, which is recorded on first use.

        :raises RuntimeError: If called in another process or event loop than that of the first use.
        """
        loop = self._loop
        if loop is None:
            self._loop = loop = current_loop()
            self._pid, self._thread = os.getpid(), get_ident()
        elif self._pid != os.getpid():
            raise RuntimeError(
                f"this {self._what} was used before the process forked, and its connections are "
                "the parent's; create a new Client in the child"
            )
        elif not loop.is_running():
            raise RuntimeError(
                f"this {self._what} belongs to another event loop; create a Client for each loop"
            )
        return loop

    def check_thread(self) -> None:
        """Check that the caller is a task or callback of the event loop of the first use.

        :raises RuntimeError: If it is not.
        """
        if self._loop is not None and get_ident() != self._thread:
            raise RuntimeError(
                f"this {self._what} can only be used in its event loop's thread; from another "
                "thread, use anyio.from_thread, or a SyncClient"
            )

    def call_soon(self, function: Callable[[], None]) -> None:
        """Schedule a function for a finalizer, which may run in any thread and at any point of the
        code.

        The function is called in the event loop's next turn, or immediately if the event loop is
        not running in this thread. In a forked child, it is not called.
        """
        if self._loop is None or self._pid != os.getpid():
            return
        if self._thread == get_ident() and not self._loop.is_running():
            function()
        else:
            self._loop.call_soon(function)
