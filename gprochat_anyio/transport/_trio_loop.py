"""The reactor's adapter for Trio. Imported only while Trio is running."""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf

import trio
from trio.lowlevel import Abort, Task


class TrioLoop:
    """Adapter for Trio. One system task watches the descriptor and the next deadline."""

    def __init__(self) -> None:
        self.clock: Callable[[], float] = trio.current_time
        self.checkpoint = trio.lowlevel.checkpoint
        self.checkpoint_if_cancelled = trio.lowlevel.checkpoint_if_cancelled
        self._fd: int | None = None
        self._poll: Callable[[], None]
        self._expire: Callable[[], None]
        self._at = inf
        self._scope: trio.CancelScope | None = None
        self._stopped = False
        self._token = trio.lowlevel.current_trio_token()

    def is_running(self) -> bool:
        try:
            return trio.lowlevel.current_trio_token() is self._token
        except RuntimeError:
            return False

    def start(self, fd: int | None, poll: Callable[[], None], expire: Callable[[], None]) -> None:
        self._fd, self._poll, self._expire = fd, poll, expire
        trio.lowlevel.spawn_system_task(
            self._run, name="gprochat_anyio reactor", context=contextvars.Context()
        )

    def arm(self, at: float) -> None:
        if at < self._at or at == inf:
            self._at = at
            if self._scope is not None:
                self._scope.deadline = at

    def stop(self) -> None:
        self._stopped = True
        del self._poll, self._expire  # they refer to the reactor, which refers to this
        if self._scope is None:  # the task has not started, is expiring deadlines, or has ended
            return
        if self._fd is None:
            self._scope.cancel()
        else:
            # Not a cancellation, which would touch the descriptor after it may have been reused.
            trio.lowlevel.notify_closing(self._fd)

    def spawn(
        self,
        function: Callable[[], Awaitable[None]],
        name: str,
        context: contextvars.Context | None = None,
    ) -> Callable[[], object]:
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await function()

        context = contextvars.Context() if context is None else context
        trio.lowlevel.spawn_system_task(run, name=name, context=context)
        return scope.cancel

    def call_soon(self, function: Callable[[], None]) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function)

    def notify_closing(self, fd: int) -> None:
        trio.lowlevel.notify_closing(fd)

    def signal(self) -> TrioSignal:
        return TrioSignal()

    async def _run(self) -> None:
        try:
            while not self._stopped:
                with trio.CancelScope(deadline=self._at) as self._scope:
                    await self._watch()
                self._scope = None
                self._at = inf
                if not self._stopped:
                    self._expire()
        finally:
            self._stopped = True  # Trio may have ended with connections open
            self._scope = None

    async def _watch(self) -> None:
        if self._fd is None:
            await trio.sleep_forever()
        try:
            while not self._stopped:
                await trio.lowlevel.wait_readable(self._fd)
                if not self._stopped:  # it may have been stopped meanwhile
                    self._poll()
        except trio.ClosedResourceError:
            return


class TrioSignal:
    """A signal that reschedules the waiting task."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: Task | None = None

    async def wait(self) -> None:
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def set(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def _abort(self, _: object) -> Abort:
        self._task = None
        return Abort.SUCCEEDED
