"""The process and the event loop that an object with connections belongs to."""

from __future__ import annotations

import os

from anyio import NoEventLoopError
from anyio.lowlevel import EventLoopToken, current_token


class Home:
    """Remembers where it was first used, and refuses to be used elsewhere.

    :param what: what to call the object in the error
    """

    __slots__ = ("_pid", "_token", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._pid = 0
        self._token: EventLoopToken | None = None

    def check(self) -> None:
        """Make sure that this is the process and the event loop of the first use.

        :raises RuntimeError: if not
        """
        try:
            token = current_token()
        except NoEventLoopError:
            raise RuntimeError(
                f"this {self._what} is for the tasks of its event loop; from another thread, call "
                "it by anyio.from_thread, or use a SyncClient"
            ) from None
        if self._token is None:
            self._token, self._pid = token, os.getpid()
        elif self._pid != os.getpid():
            raise RuntimeError(
                f"this {self._what} was used before the process forked, and its connections are "
                "the parent's; make a new Client in the child"
            )
        elif token != self._token:
            raise RuntimeError(
                f"this {self._what} belongs to another event loop; make a Client for each loop"
            )
