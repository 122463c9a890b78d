"""Ctrl-C for a command that has something to finish."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import anyio

INTERRUPTED: Final = 130
"""The exit status."""


class CtrlC:
    """The first one asks to stop, the second one cancels, the third one ends the process.

    :param on_first: called with the first one
    """

    def __init__(self, on_first: Callable[[], None]) -> None:
        self.count = 0
        self.stop = anyio.Event()
        self.scope = anyio.CancelScope()
        """To be entered by what is to be cancelled."""
        self._on_first = on_first

    async def watch(self) -> None:
        """Wait for them until cancelled; returns at once where the caller ignores them."""
        before = signal.getsignal(signal.SIGINT)
        if before is signal.SIG_IGN:  # as nohup has it
            return
        try:
            with (
                suppress(NotImplementedError),  # asyncio on Windows: it ends at once
                anyio.open_signal_receiver(signal.SIGINT) as interruptions,
            ):
                async for _ in interruptions:
                    self.press()
        finally:
            signal.signal(signal.SIGINT, before)  # asyncio would leave Python's own

    def press(self) -> None:
        """Do what one of them does."""
        self.count += 1
        if self.count == 1:
            self.stop.set()
            self._on_first()
        elif self.count == 2:
            self.scope.cancel()
        else:  # a disk or a terminal hangs
            os._exit(INTERRUPTED)
