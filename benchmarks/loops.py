"""Event loops, and their native ways to run many tasks and to cancel one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
Async = Callable[[], Coroutine[Any, Any, T]]
AsyncWith = Callable[[T], Coroutine[Any, Any, None]]


def run(loop: str, main: Async[T]) -> T:
    """Run `main` on the event loop of that name. Peers that block run on asyncio's."""
    if loop == "trio":
        import trio

        return trio.run(main)
    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def on_trio() -> bool:
    """Return True if the caller runs on Trio."""
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_run()


async def sleep(seconds: float) -> None:
    if on_trio():
        import trio

        await trio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


async def together(call: AsyncWith[T], arguments: Iterable[T]) -> None:
    """Call an async function concurrently with each argument, in the loop's native task group."""
    if on_trio():
        import trio

        async with trio.open_nursery() as nursery:
            for argument in arguments:
                nursery.start_soon(call, argument)
    else:
        async with asyncio.TaskGroup() as group:
            for argument in arguments:
                group.create_task(call(argument))


async def cancelled(work: Async[Any], when: Async[None], at: Callable[[], None]) -> None:
    """Start `work`, wait for `when`, call `at`, and cancel `work` natively.

    Return once the cancellation has completed.
    """
    if on_trio():
        import trio

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            await when()
            at()
            nursery.cancel_scope.cancel()
    else:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work())
            await when()
            at()
            task.cancel()


async def cancelled_by_anyio(work: Async[Any], when: Async[None], at: Callable[[], None]) -> None:
    """Do the same as `cancelled`, but with AnyIO's task group and cancel scope."""
    import anyio

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await when()
        at()
        group.cancel_scope.cancel()
