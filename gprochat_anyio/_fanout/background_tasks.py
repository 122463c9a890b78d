"""The background tasks of one block."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVarTuple

import anyio
from anyio.abc import TaskGroup

_Args = TypeVarTuple("_Args")


async def leave(tasks: TaskGroup) -> None:
    """Leave a task group whose tasks are cancelled and wait for nobody, so this is short.

    What the block raised is not for the group, which would wrap it.

    :raises KeyboardInterrupt: bare, if it hit a task
    """
    tasks.cancel_scope.shield = True
    try:
        await tasks.__aexit__(None, None, None)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


class BackgroundTasks:
    """Tasks that the end of a block cancels and waits for, without a word to say in how it ends.

    They run in shielded scopes: a cancellation of the caller's reaches them through the end of
    the block, so a caller that is shielded may go on to read what they make. What a task raises
    is kept in `failure` and ends the others, so nothing passes the task group that would wrap it.

    :param on_failure: called once there is a failure
    """

    def __init__(self, on_failure: Callable[[], None]) -> None:
        self._on_failure = on_failure
        self._tasks: TaskGroup | None = None
        self._scopes: set[anyio.CancelScope] = set()
        self._owner = 0
        self.cancelled = False
        self.failure: Exception | None = None
        """What ended the crew; the first of several."""
        self._late: Exception | None = None

    async def __aenter__(self) -> Self:
        self._owner = anyio.get_current_task().id
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        assert self._tasks is not None
        self.cancel()
        await leave(self._tasks)
        if exc_val is None and self._late is not None:
            raise self._late

    def check_task(self) -> None:
        """Make sure that this task is the one that entered the block.

        :raises RuntimeError: if not
        """
        if anyio.get_current_task().id != self._owner:
            raise RuntimeError(
                "the block must be left by the task that entered it; to end it from another, "
                "call aclose()"
            )

    def start(self, work: Callable[[*_Args], Awaitable[None]], *args: *_Args) -> None:
        """Run a task, unless the crew is cancelled."""
        assert self._tasks is not None
        if not self.cancelled:
            self._tasks.start_soon(self._run, work, args, name="gprochat_anyio fan-out")

    def cancel(self) -> None:
        """Cancel all tasks, from any task of the event loop, without waiting for their end."""
        self.cancelled = True
        for scope in tuple(self._scopes):
            scope.cancel()

    def fail(self, error: Exception) -> None:
        """End the crew with a failure. One of a crew that is cancelled already is raised by the
        end of the block, if that has nothing else to raise."""
        if self.cancelled:
            self._late = self._late or error
            return
        self.failure = error
        self.cancel()
        self._on_failure()

    async def _run(self, work: Callable[[*_Args], Awaitable[None]], args: tuple[*_Args]) -> None:
        with anyio.CancelScope(shield=True) as scope:
            if self.cancelled:
                return
            self._scopes.add(scope)
            try:
                await work(*args)
            except Exception as error:  # noqa: BLE001 - raised where the caller looks
                self.fail(error)
            except anyio.get_cancelled_exc_class():
                if self.cancelled:
                    raise
                # passed on, it would cancel the caller instead
                self.fail(RuntimeError("a task of this block was cancelled by other code"))
            finally:
                self._scopes.discard(scope)
