"""The process and the event loop that an object with connections belongs to."""

from __future__ import annotations

import os
from threading import get_ident
from typing import Any

from anyio import NoEventLoopError
from anyio.lowlevel import EventLoopToken, current_token


class LoopAffinity:
    """Remembers where it was first used, and refuses to be used elsewhere.

    :param what: what to call the object in the error
    """

    __slots__ = ("_pid", "_thread", "_token", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._pid = self._thread = 0
        self._token: EventLoopToken | None = None

    def check(self) -> None:
        """Make sure that this is the process and the event loop of the first use.

        :raises RuntimeError: if not
        """
        token = current_token()
        if self._token is None:
            self._token, self._pid, self._thread = token, os.getpid(), get_ident()
        elif self._pid != os.getpid():
            raise RuntimeError(
                f"this {self._what} was used before the process forked, and its connections are "
                "the parent's; make a new Client in the child"
            )
        elif token != self._token:
            raise RuntimeError(
                f"this {self._what} belongs to another event loop; make a Client for each loop"
            )

    def check_thread(self) -> None:
        """Make sure that this is the thread of the first use: for what callbacks of the event
        loop may call, signal handlers among them, which are in no task.

        :raises RuntimeError: if not
        """
        if get_ident() != self._thread:
            raise RuntimeError(
                f"this {self._what} is for the tasks of its event loop; from another thread, call "
                "it by anyio.from_thread, or use a SyncClient"
            )

    def callback_loop(self) -> Any:
        """asyncio's event loop, if this is called by one of its callbacks that runs in no task
        and no context of one, where AnyIO finds no loop; else None."""
        try:
            current_token()
        except NoEventLoopError:
            assert self._token is not None
            return self._token.native_token
        return None
