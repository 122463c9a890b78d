"""Cancelling a task at its k-th suspension, whichever that is."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal

import anyio
import sniffio

Moment = Literal["before", "after"]
"""Whether the cancellation comes as the task suspends, or with what it had waited for."""


@dataclass(frozen=True)
class Injection:
    """A cancellation of one operation.

    :param native: by asyncio's `task.cancel()`, rather than by a cancel scope
    """

    at: int
    moment: Moment = "before"
    native: bool = False


def injections() -> list[tuple[Moment, bool]]:
    """The kinds of cancellation that the running event loop has."""
    natives = (False, True) if sniffio.current_async_library() == "asyncio" else (False,)
    return [(moment, native) for native in natives for moment in ("before", "after")]


async def cancelled(
    injection: Injection, operation: Callable[[], Awaitable[object]]
) -> Literal["cancelled", "ended", "not reached"]:
    """Run an operation, cancelled at its k-th suspension, and say what became of it.

    "ended" is an operation that had no further suspension at which it could have noticed.
    """
    if injection.native:
        return await _cancelled_natively(injection, operation)
    with anyio.CancelScope() as scope:
        reached = await _stepped(operation(), injection, scope.cancel)
        if not reached:
            return "not reached"
    return "cancelled" if scope.cancelled_caught else "ended"


async def _cancelled_natively(
    injection: Injection, operation: Callable[[], Awaitable[object]]
) -> Literal["cancelled", "ended", "not reached"]:
    async def run() -> bool:
        task = asyncio.current_task()
        assert task is not None
        return await _stepped(operation(), injection, task.cancel)

    task = asyncio.create_task(run())
    try:
        await asyncio.wait([task])
    finally:
        if not task.done():  # the test itself is cancelled
            task.cancel()
    if task.cancelled():
        return "cancelled"
    return "ended" if task.result() else "not reached"


@types.coroutine
def _stepped(
    operation: Awaitable[object], injection: Injection, cancel: Callable[[], object]
) -> Generator[Any, Any, bool]:
    steps = operation.__await__()
    count = 0
    resume: Callable[[], Any] = lambda: next(steps)  # noqa: E731 - the first of several
    while True:
        try:
            suspended = resume()
        except StopIteration:
            return count >= injection.at
        count += 1
        if count == injection.at and injection.moment == "before":
            cancel()
        try:
            value = yield suspended
        except BaseException as error:  # noqa: BLE001 - it is for the operation to handle
            resume = _thrower(steps, error)
        else:
            resume = _sender(steps, value)
        if count == injection.at and injection.moment == "after":
            cancel()


def _thrower(steps: Generator[Any, Any, Any], error: BaseException) -> Callable[[], Any]:
    return lambda: steps.throw(error)


def _sender(steps: Generator[Any, Any, Any], value: object) -> Callable[[], Any]:
    return lambda: steps.send(value)
