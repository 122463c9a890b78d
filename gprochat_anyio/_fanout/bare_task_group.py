"""A task group that wraps no exception."""

from __future__ import annotations

from types import TracebackType

import anyio
from anyio.abc import TaskGroup


class BareTaskGroup:
    """A task group whose tasks end with its block, and that leaves the block's exception as it is.

    Its tasks raise nothing but cancellations and interrupts, and wait for nobody once they are
    cancelled, so leaving the block takes no time that could be cancelled.
    """

    async def __aenter__(self) -> TaskGroup:
        self._group = anyio.create_task_group()
        return await self._group.__aenter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self._group.cancel_scope.cancel()
        self._group.cancel_scope.shield = True
        try:
            await self._group.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            raise _first(group) from None
        except anyio.get_cancelled_exc_class():
            if not isinstance(exc_val, anyio.get_cancelled_exc_class()):
                raise  # else the block's own goes on: it is the same cancellation


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
