"""Cancelling an operation at its k-th suspension, whichever that is, on asyncio and on Trio.

A cancellation at a random time seldom hits the one moment in which something is lost; trying every
moment does. A suspension is where a task hands over to the event loop: every checkpoint that
does so, and each that a library makes below it.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import anyio
from anyio.lowlevel import current_token

Moment: TypeAlias = Literal["before", "after"]
"""Whether the cancellation comes as the task suspends, or with what it had waited for."""

End: TypeAlias = Literal["cancelled", "ended", "not reached"]


@dataclass(frozen=True, slots=True)
class Injection:
    """A cancellation of one operation.

    :param at: at which of its suspensions, from 1
    :param native: by asyncio's `task.cancel()`, rather than by a cancel scope
    :param again: at which later suspension it is cancelled once more, while it cleans up: by a
        scope around the first one, or by another `task.cancel()`
    """

    at: int
    moment: Moment = "before"
    native: bool = False
    again: int | None = None


def injections() -> list[tuple[Moment, bool]]:
    """The kinds of cancellation that the running event loop has: `moment` and `native`."""
    natives = (False, True) if _is_asyncio() else (False,)
    return [(moment, native) for native in natives for moment in ("before", "after")]


async def cancelled(injection: Injection, operation: Callable[[], Awaitable[object]]) -> End:
    """Run an operation, cancelled at its k-th suspension, and say what became of it.

    An exception that it raises leaves as it is. Cancelled from outside, so is the operation.

    :param operation: is called once
    :return: `"cancelled"`; `"ended"`, if it had no further suspension at which it could have
        noticed; `"not reached"`, if it ended before its last cancellation
    :raises RuntimeError: for a native cancellation on Trio, which has none
    """
    if injection.native:
        if not _is_asyncio():
            raise RuntimeError("only asyncio has native cancellation; see injections()")
        return await _cancelled_natively(injection, operation)
    outer, inner = anyio.CancelScope(), anyio.CancelScope()
    steps = _Steps(injection, inner.cancel, outer.cancel)
    with outer, inner:
        await steps.run(operation())
    return steps.end(caught=inner.cancelled_caught or outer.cancelled_caught)


class Cancelling:
    """Runs an operation once, with one injection: `await cancel(operation)`."""

    def __init__(self, injection: Injection) -> None:
        self.injection = injection
        """What is injected; its `repr` tells the place in a failing assertion's message."""
        self.end: End | None = None
        """What became of it, once it was run."""

    def __repr__(self) -> str:
        return f"<{self.injection}: {self.end}>"

    async def __call__(self, operation: Callable[[], Awaitable[object]]) -> End:
        """See `cancelled`."""
        self.end = await cancelled(self.injection, operation)
        return self.end


def at_every_checkpoint(*, twice: bool = False) -> Iterator[Cancelling]:
    """Every cancellation that an operation can meet, one after the other.

    ::

        for cancel in at_every_checkpoint():
            async with no_leaks(client):
                await cancel(lambda: client.ask("Hi"))
            assert (await client.ask("Hi")).text == "Hello", cancel

    At each of its suspensions, by a cancel scope and, on asyncio, natively; as it suspends and as
    it goes on. It ends when the operation has no further suspension, so give it one that does the
    same each time: a site in memory sees to that. To be used in a running event loop.

    :param twice: cancel it a second time, at every suspension that follows the first
    :raises RuntimeError: if the loop's body has not awaited what it was given, and so would never
        end
    """
    for moment, native in injections():
        at = 0
        while True:
            at += 1
            end = yield from _one(Injection(at, moment, native))
            if end == "not reached":
                break
            again = at
            while twice:
                again += 1
                end = yield from _one(Injection(at, moment, native, again))
                if end == "not reached":
                    break


def _one(injection: Injection) -> Generator[Cancelling, None, End]:
    cancel = Cancelling(injection)
    yield cancel
    if cancel.end is None:
        raise RuntimeError("await each that at_every_checkpoint() gives: await cancel(operation)")
    return cancel.end


def _is_asyncio() -> bool:
    return isinstance(current_token().native_token, asyncio.AbstractEventLoop)


async def _cancelled_natively(
    injection: Injection, operation: Callable[[], Awaitable[object]]
) -> End:
    steps: _Steps | None = None

    async def run() -> None:
        nonlocal steps
        task = asyncio.current_task()
        assert task is not None
        steps = _Steps(injection, task.cancel, task.cancel)
        await steps.run(operation())

    task = asyncio.create_task(run())
    try:
        await asyncio.wait([task])
    finally:
        if not task.done():  # the test itself is cancelled
            task.cancel()
    if not task.cancelled():
        task.result()
    assert steps is not None
    return steps.end(caught=task.cancelled())


class _Steps:
    """Runs an operation suspension by suspension.

    :param cancel: is called at the first injection
    :param cancel_again: at the second
    """

    def __init__(
        self,
        injection: Injection,
        cancel: Callable[[], object],
        cancel_again: Callable[[], object],
    ) -> None:
        self._moment = injection.moment
        self._calls = {injection.at: cancel}
        if injection.again is not None:
            self._calls[injection.again] = cancel_again
        self._count = 0

    def end(self, *, caught: bool) -> End:
        """What became of it.

        :param caught: whether it ended by a cancellation
        """
        if self._count < max(self._calls):
            return "not reached"
        return "cancelled" if caught else "ended"

    @types.coroutine
    def run(self, operation: Awaitable[object]) -> Generator[Any, Any, None]:
        steps = operation.__await__()
        resume: Callable[[], Any] = lambda: next(steps)  # noqa: E731 - the first of several
        while True:
            try:
                suspended = resume()
            except StopIteration:
                return
            self._count += 1
            self._inject("before")
            try:
                value = yield suspended
            except BaseException as error:  # noqa: BLE001 - it is for the operation to handle
                resume = _thrower(steps, error)
            else:
                resume = _sender(steps, value)
            self._inject("after")

    def _inject(self, moment: Moment) -> None:
        if moment == self._moment and self._count in self._calls:
            self._calls[self._count]()


def _thrower(steps: Generator[Any, Any, Any], error: BaseException) -> Callable[[], Any]:
    return lambda: steps.throw(error)


def _sender(steps: Generator[Any, Any, Any], value: object) -> Callable[[], Any]:
    return lambda: steps.send(value)
