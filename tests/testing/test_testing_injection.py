"""The harness that cancels an operation at its k-th suspension."""

from __future__ import annotations

from contextlib import suppress

import anyio
import pytest
from anyio.lowlevel import checkpoint

from gprochat_anyio.testing import (
    Injection,
    at_every_checkpoint,
    cancelled,
    injections,
)


async def three() -> None:
    for _ in range(3):
        await checkpoint()


async def test_the_kinds(anyio_backend_name: str) -> None:
    kinds = [("before", False), ("after", False)]
    if anyio_backend_name == "asyncio":
        kinds += [("before", True), ("after", True)]
    assert injections() == kinds


async def test_outcomes() -> None:
    for moment, native in injections():
        for at in 1, 2, 3:
            expected = {"cancelled", "ended"} if (moment, at) == ("after", 3) else {"cancelled"}
            assert await cancelled(Injection(at, moment, native), three) in expected
        assert await cancelled(Injection(4, moment, native), three) == "not reached"


async def test_it_is_cancelled_at_the_given_suspension() -> None:
    reached: list[int] = []

    async def operation() -> None:
        reached.clear()
        for number in range(1, 4):
            reached.append(number)
            await checkpoint()

    for cancel in at_every_checkpoint():
        await cancel(operation)
        if cancel.end == "cancelled" and cancel.injection.moment == "before":
            assert reached == list(range(1, cancel.injection.at + 1)), cancel


async def test_every_one_comes_once() -> None:
    seen = []
    for cancel in at_every_checkpoint():
        await cancel(three)
        seen.append(cancel.injection)
    assert len(set(seen)) == len(seen) == len(injections()) * 4


async def test_twice() -> None:
    cleaned = False

    async def tidy() -> None:
        nonlocal cleaned
        cleaned = False
        try:
            await checkpoint()
        finally:
            with anyio.CancelScope(shield=True):
                await checkpoint()
                cleaned = True

    def pairs(*, native: bool) -> set[tuple[int, int | None]]:
        return {(i.at, i.again) for i in seen if i.native == native}

    seen, spoilt = [], []
    for cancel in at_every_checkpoint(twice=True):
        await cancel(tidy)
        seen.append(cancel.injection)
        if not cleaned:
            spoilt.append(cancel.injection)
    natives = {native for _, native in injections()}
    for native in natives:
        assert {(1, None), (1, 2)} <= pairs(native=native)
    # a shield stops scopes, but not native cancellations
    assert {i.native for i in spoilt} == natives - {False}
    assert all(2 in (i.at, i.again) for i in spoilt if i.moment == "before")


async def test_the_second_one_by_an_outer_scope() -> None:
    async def stubborn() -> None:
        with suppress(ZeroDivisionError):
            await checkpoint()
        await checkpoint()

    assert await cancelled(Injection(1, again=2), stubborn) in ("cancelled", "not reached")
    assert await cancelled(Injection(1, again=9), stubborn) == "not reached"
    assert await cancelled(Injection(9, again=10), stubborn) == "not reached"


async def test_an_operations_own_exception_is_raised() -> None:
    async def broken() -> None:
        await checkpoint()
        raise ZeroDivisionError

    for moment, native in injections():
        with pytest.raises(ZeroDivisionError):
            await cancelled(Injection(9, moment, native), broken)


async def test_it_can_be_cancelled_from_outside() -> None:
    for moment, native in injections():
        with anyio.move_on_after(0.01) as scope:
            await cancelled(Injection(9, moment, native), anyio.sleep_forever)
        assert scope.cancelled_caught


async def test_misuse(anyio_backend_name: str) -> None:
    with pytest.raises(RuntimeError, match="await each"):
        for _ in at_every_checkpoint():
            pass
    if anyio_backend_name == "trio":
        with pytest.raises(RuntimeError, match="only asyncio"):
            await cancelled(Injection(1, native=True), three)


async def test_repr_names_the_suspension() -> None:
    cancel = next(at_every_checkpoint())
    assert repr(cancel).startswith("<Injection(at=1, moment='before', native=False, again=None)")
