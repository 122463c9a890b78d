"""The replies of a turn on their way to the terminal, and how Ctrl-C ends them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NoReturn, Self, TextIO

import anyio
from anyio import to_thread

from ._ctrl_c import INTERRUPTED
from ._exits import say
from ._speaker import Answer
from ._views import View


class Interrupts:
    """What Ctrl-C does between two prompts, which see to it themselves.

    For asyncio's event loop, whose own way of handling signals Windows does not have.
    """

    def __init__(self) -> None:
        self.pressed = False
        """Whether the last thing that a person did was to press it."""
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
        """Have it do something, for the time of the block."""
        self._act = act
        try:
            yield
        finally:
            self._act = None

    def _press(self) -> None:
        self.pressed = True
        if self._act is not None:
            self._act()


class QuietKeyboard:
    """What is typed waits for the next prompt, and is not seen in the middle of a reply.

    :param keyboard: the terminal's; None if there is none
    """

    def __init__(self, keyboard: TextIO | None) -> None:
        self._keyboard = keyboard if os.name == "posix" else None
        self._modes: Any = None

    def __enter__(self) -> Self:
        if self._keyboard is not None:
            import termios  # noqa: PLC0415 - not on Windows

            self._modes = termios.tcgetattr(self._keyboard)
            quiet = [*self._modes[:3], self._modes[3] & ~termios.ECHO, *self._modes[4:]]
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
        """Have the terminal show again what is typed."""
        if self._keyboard is not None:
            import termios  # noqa: PLC0415

            termios.tcsetattr(self._keyboard, termios.TCSANOW, self._modes)


async def receive(
    answers: Sequence[Answer],
    show: Callable[[Answer], View],
    interrupts: Interrupts,
    keyboard: QuietKeyboard,
) -> bool:
    """Receive all answers at the same time, and show them one after the other.

    The first Ctrl-C stops the answers, the second one leaves; the third ends the process.

    :param show: begins to show an answer; in a thread
    :return: whether to go on with the chat
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
    while (text := await answer.more()) is not None:
        began = time.perf_counter()
        await to_thread.run_sync(view.show, text)
        if view.pause:  # for text to come together; longer where showing it takes long
            await anyio.sleep(max(view.pause, time.perf_counter() - began))
    await to_thread.run_sync(view.end)
    if answer.error is not None:
        say(answer.speaker.site.words_of(answer.error))
    elif answer.stopped:
        say("stopped")


def _give_up(keyboard: QuietKeyboard) -> NoReturn:
    """The terminal, or a disk, hangs."""
    keyboard.restore()
    os._exit(INTERRUPTED)
