"""Ctrl-C and termination signals, for a command with work to finish."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import anyio

INTERRUPTED: Final = 130
"""The exit status after Ctrl-C."""

_ENDING: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class CtrlC:
    """Handler of Ctrl-C. The first requests a stop, the second cancels, the third ends the process.

    SIGTERM and SIGHUP, which schedulers and closed terminals send, count as Ctrl-C.

    :param on_first: Called at the first one.
    """

    def __init__(self, on_first: Callable[[], None]) -> None:
        self.count = 0
        self.stop = anyio.Event()
        self.scope = anyio.CancelScope()
        """Encloses the work that the second one cancels."""
        self._on_first = on_first
        self._first: int = signal.SIGINT

    @property
    def status(self) -> int:
        """The exit status of a command that the first signal has ended."""
        return 128 + self._first

    async def watch(self) -> None:
        """Handle the signals until cancelled. Return immediately if all of them are ignored."""
        before = {number: signal.getsignal(number) for number in _ENDING}
        heeded = [n for n, handler in before.items() if handler is not signal.SIG_IGN]  # nohup
        if not heeded:
            return
        try:
            with (
                suppress(NotImplementedError),  # asyncio on Windows, where Ctrl-C ends the process
                anyio.open_signal_receiver(*heeded) as interruptions,
            ):
                async for number in interruptions:
                    self.press(number)
        finally:
            for number in heeded:  # asyncio would leave Python's default handlers
                signal.signal(number, before[number])

    def press(self, number: int = signal.SIGINT) -> None:
        """Act on a signal.

        :param number: The signal's number.
        """
        self.count += 1
        if self.count == 1:
            self._first = number
            self.stop.set()
            self._on_first()
        elif self.count == 2:
            self.scope.cancel()
        else:  # a disk or a terminal hangs
            os._exit(self.status)
