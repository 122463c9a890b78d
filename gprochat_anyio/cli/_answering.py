"""Receiving and showing the replies of a turn, with Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, NoReturn, Self, TextIO

import anyio
from anyio import to_thread

from ._ctrl_c import INTERRUPTED
from ._exit_codes import say, with_options
from ._speaker import Answer
from ._views import View

_TICK: Final = 1.0
"""Interval between updates of the waiting time, in seconds."""


class Interrupts:
    """Handler of Ctrl-C between prompts, which handle it themselves.

    For asyncio. The event loop's own signal handlers do not exist on Windows.
    """

    def __init__(self) -> None:
        self.pressed = False
        """True if Ctrl-C was the last input."""
        self._act: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()

        def handle(*_: object) -> None:
            loop.call_soon_threadsafe(self._press)

        self._before = signal.signal(signal.SIGINT, handle)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def doing(self, act: Callable[[], None]) -> Iterator[None]:
        """Call `act` at each Ctrl-C for the duration of the block."""
        self._act = act
        try:
            with _woken_by_signals(asyncio.get_running_loop()):
                yield
        finally:
            self._act = None

    def _press(self) -> None:
        self.pressed = True
        if self._act is not None:
            self._act()


@contextmanager
def _woken_by_signals(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Wake the event loop at each signal for the duration of the block.

    Otherwise, a signal that arrives just before the loop waits, or in another thread, is handled
    at the loop's next event. On Windows, asyncio does this itself.
    """
    if os.name != "posix":  # pragma: no cover - another system
        yield
        return
    receiver, sender = socket.socketpair()
    with receiver, sender:
        for end in (receiver, sender):
            end.setblocking(False)
        loop.add_reader(receiver, receiver.recv, 4096)
        before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            loop.remove_reader(receiver)


class QuietKeyboard:
    """A keyboard without echo during a reply. The next prompt gets the keys as typed.

    They include Ctrl-D, which then leaves the chat.

    :param keyboard: The terminal's input. None without a terminal.
    """

    def __init__(self, keyboard: TextIO | None) -> None:
        self._keyboard = keyboard if os.name == "posix" else None
        self._modes: Any = None

    def __enter__(self) -> Self:
        if self._keyboard is not None:
            import termios  # noqa: PLC0415 - not on Windows

            self._modes = termios.tcgetattr(self._keyboard)
            as_typed = self._modes[3] & ~(termios.ECHO | termios.ICANON)
            quiet = [*self._modes[:3], as_typed, *self._modes[4:]]
            termios.tcsetattr(self._keyboard, termios.TCSANOW, quiet)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.restore()

    def restore(self) -> None:
        """Restore the terminal's modes."""
        if self._keyboard is not None:
            import termios  # noqa: PLC0415

            termios.tcsetattr(self._keyboard, termios.TCSANOW, self._modes)


async def receive(
    answers: Sequence[Answer],
    show: Callable[[Answer], View],
    interrupts: Interrupts,
    keyboard: QuietKeyboard,
) -> bool:
    """Receive all answers concurrently, and show them one after the other.

    The first Ctrl-C stops the answers, the second leaves the chat, the third ends the process.

    :param show: Returns the view of an answer. Called in a thread.
    :return: True to continue the chat, False to leave it.
    """
    presses = 0
    failure: Exception | None = None

    def press() -> None:
        nonlocal presses
        presses += 1
        if presses == 1:
            for answer in answers:
                answer.stop()
        elif presses == 2:
            tg.cancel_scope.cancel()
        else:
            _give_up(keyboard)

    with keyboard, interrupts.doing(press):
        async with anyio.create_task_group() as tg:
            for answer in answers:
                tg.start_soon(answer.run)
            try:
                for answer in answers:
                    await _show(answer, show)
            except Exception as error:  # noqa: BLE001 - bare; the task group would wrap it
                failure = error
                tg.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return presses < 2


async def _show(answer: Answer, show: Callable[[Answer], View]) -> None:
    view = await to_thread.run_sync(show, answer)
    while (text := await _more(answer, view)) is not None:
        began = time.perf_counter()
        await to_thread.run_sync(view.show, text)
        if view.pause:  # to collect text; longer if showing it is slow
            await anyio.sleep(max(view.pause, time.perf_counter() - began))
    await to_thread.run_sync(view.end)
    if answer.error is not None:
        say(with_options(answer.speaker.site.words_of(answer.error)))
    elif answer.stopped:
        say("stopped; the earlier reply stays" if answer.keeps_earlier else "stopped")


async def _more(answer: Answer, view: View) -> str | None:
    """Return the next text of an answer, and show the waiting time until it arrives."""
    while True:
        with anyio.move_on_after(_TICK):
            return await answer.more()
        await to_thread.run_sync(view.wait, answer.elapsed)


def _give_up(keyboard: QuietKeyboard) -> NoReturn:
    """End the process, because the terminal or a disk hangs."""
    keyboard.restore()
    os._exit(INTERRUPTED)
