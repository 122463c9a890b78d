"""Cancellation of an operation at its k-th suspension, on asyncio and Trio.

A cancellation at a random time rarely hits the moment at which something is lost. Trying every
suspension does. At a suspension, a task yields to the event loop: at the operation's own
checkpoints and at those of the libraries that it uses.
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
"""The time of the cancellation: when the task suspends, or when it is about to be resumed."""

End: TypeAlias = Literal["cancelled", "ended", "not reached"]


@dataclass(frozen=True, slots=True)
class Injection:
    """One cancellation of an operation.

    :param at: The number of the suspension, from 1.
    :param native: Use asyncio's `task.cancel()` instead of a cancel scope.
    :param again: The number of a later suspension, at which the operation is cancelled again while
        it cleans up: by a surrounding scope, or by another `task.cancel()`.
    """

    at: int
    moment: Moment = "before"
    native: bool = False
    again: int | None = None


def injections() -> list[tuple[Moment, bool]]:
    """Return the kinds of cancellation of the running event loop: `moment` and `native`."""
    natives = (False, True) if _is_asyncio() else (False,)
    return [(moment, native) for native in natives for moment in ("before", "after")]


async def cancelled(injection: Injection, operation: Callable[[], Awaitable[object]]) -> End:
    """Run an operation, cancel it at its k-th suspension, and return the outcome.

    Exceptions of the operation propagate unchanged. Cancelling this function cancels the operation.

    :param operation: The operation, which is called once.
    :return: `"cancelled"`; `"ended"` if the operation had no further suspension to notice the
        cancellation; `"not reached"` if it ended before the last cancellation.
    :raises RuntimeError: If the injection is native and the event loop is Trio.
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
    """Runner of an operation with one injection: `await cancel(operation)`."""

    def __init__(self, injection: Injection) -> None:
        self.injection = injection
        """The injection, whose `repr` shows the suspension in the message of a failed assertion."""
        self.end: End | None = None
        """The outcome, once the operation has run."""

    def __repr__(self) -> str:
        return f"<{self.injection}: {self.end}>"

    async def __call__(self, operation: Callable[[], Awaitable[object]]) -> End:
        """Run the operation; see `cancelled`."""
        self.end = await cancelled(self.injection, operation)
        return self.end


def at_every_checkpoint(*, twice: bool = False) -> Iterator[Cancelling]:
    """Yield every possible cancellation of an operation, one after another.

    ::

        for cancel in at_every_checkpoint():
            async with no_leaks(client):
                await cancel(lambda: client.ask("Hi"))
            assert (await client.ask("Hi")).text == "Hello", cancel

    The operation is cancelled at each of its suspensions, both when it suspends and when it is
    about to be resumed, by a cancel scope and, on asyncio, natively. The iteration ends when there
    is no further suspension, so the operation must be deterministic, as with an in-memory site. An
    event loop must be running.

    :param twice: Cancel the operation a second time, at each later suspension.
    :raises RuntimeError: If the loop's body does not await the yielded object, which would never
        end.
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
        if not task.done():  # the test itself was cancelled
            task.cancel()
    if not task.cancelled():
        task.result()
    assert steps is not None
    return steps.end(caught=task.cancelled())


class _Steps:
    """Runner of an operation that counts its suspensions.

    :param cancel: Called at the first injection.
    :param cancel_again: Called at the second injection.
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
        """Return the outcome of the operation.

        :param caught: True if the operation raised the cancellation.
        """
        if self._count < max(self._calls):
            return "not reached"
        return "cancelled" if caught else "ended"

    @types.coroutine
    def run(self, operation: Awaitable[object]) -> Generator[Any, Any, None]:
        steps = operation.__await__()
        resume: Callable[[], Any] = lambda: next(steps)  # noqa: E731 - it is reassigned below
        while True:
            try:
                suspended = resume()
            except StopIteration:
                return
            self._count += 1
            self._inject("before")
            try:
                value = yield suspended
            except BaseException as error:  # noqa: BLE001 - the operation handles it
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
