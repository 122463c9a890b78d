"""A task group that raises no exception groups."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from types import TracebackType
from typing import Self, TypeVarTuple

import anyio

_Args = TypeVarTuple("_Args")


class KeptFailures:
    """Context manager that keeps a task's exception from its task group, which would wrap it.

    :param fail: Called with the exception.
    """

    def __init__(self, fail: Callable[[Exception], None]) -> None:
        self._fail = fail

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool:
        if isinstance(exc_val, Exception):
            self._fail(exc_val)
        elif (
            isinstance(exc_val, anyio.get_cancelled_exc_class())
            and anyio.current_effective_deadline() > -inf
        ):
            # otherwise the task group would end silently
            self._fail(RuntimeError("a task of this block was cancelled by other code"))
        else:
            return False
        return True


class BareTaskGroup:
    """A task group that cancels its tasks at the end of its block, and keeps the block's exception.

    Its tasks may only raise cancellations and interrupts, and must not wait once they are
    cancelled. The end of the block therefore cannot be interrupted by a cancellation.
    """

    def __init__(self) -> None:
        self._group = anyio.create_task_group()
        self._scopes: set[anyio.CancelScope] = (
            set()
        )  # the task group's own scope includes the block
        self._has_ended = False

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self._has_ended = True
        for scope in tuple(self._scopes):
            scope.cancel()
        self._group.cancel_scope.shield = True
        try:
            await self._group.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            raise _first(group) from None

    def start_soon(
        self, work: Callable[[*_Args], Awaitable[None]], *args: *_Args, name: str | None = None
    ) -> None:
        """Start a task, which is cancelled at the end of the block."""
        self._group.start_soon(self._run, work, args, name=name)

    async def _run(self, work: Callable[[*_Args], Awaitable[None]], args: tuple[*_Args]) -> None:
        if self._has_ended:
            return
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                await work(*args)
            finally:
                self._scopes.discard(scope)


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
