"""Functions that a finalizer schedules: within the event loop, after its end, in a forked child."""

from __future__ import annotations

import os
from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint

from gprochat_anyio._request.loop_affinity import LoopAffinity


async def used() -> LoopAffinity:
    affinity = LoopAffinity("Client")
    affinity.check()
    return affinity


async def test_in_the_event_loops_next_turn() -> None:
    affinity, calls = await used(), list[str]()
    affinity.call_soon(partial(calls.append, "a"))
    assert not calls
    await checkpoint()
    await checkpoint()
    assert calls == ["a"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_immediately_after_the_event_loop_has_ended(backend: str) -> None:
    affinity, calls = anyio.run(used, backend=backend), list[str]()
    affinity.call_soon(partial(calls.append, "a"))
    assert calls == ["a"]


async def test_never_in_a_forked_child(monkeypatch: pytest.MonkeyPatch) -> None:
    affinity, calls = await used(), list[str]()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        affinity.call_soon(partial(calls.append, "a"))
    await checkpoint()
    await checkpoint()
    assert not calls


async def test_never_before_its_first_use() -> None:
    calls = list[str]()
    LoopAffinity("Client").call_soon(partial(calls.append, "a"))
    await checkpoint()
    assert not calls
