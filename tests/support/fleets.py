"""Fleets of scripted sites, on sockets and in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio

from gprochat_anyio import (
    Fleet,
    Retry,
    Timeouts,
)
from gprochat_anyio._request.chat_client import opener_of
from gprochat_anyio.testing import (
    Refuse,
    Reply,
    ScriptedSite,
    live_site,
    scripted_site,
)

from .prompted import closed, pool_of

FAILS = Refuse(500, "no")

Fleets = tuple[Fleet, list[ScriptedSite]]
"""A fleet, and its sites."""


@asynccontextmanager
async def fleet_of(*replies: Reply | tuple[Reply, ...], **settings: Any) -> AsyncIterator[Fleets]:
    """Serve each reply, or each tuple of replies, on 127.0.0.1. Yield a fleet of these sites."""
    with anyio.fail_after(30):
        async with AsyncExitStack() as stack:
            sites: list[ScriptedSite] = []
            for reply in replies:
                several: Any = reply if isinstance(reply, tuple) else (reply,)
                sites.append(await stack.enter_async_context(live_site(*several)))
            # short, because a site refuses repeatedly
            retry = Retry(backoff=0.01, backoff_max=0.01)
            fleet = Fleet([site.client(retry=retry) for site in sites], **settings)
            yield await stack.enter_async_context(fleet), sites


@asynccontextmanager
async def fleet_in_memory(
    *replies: Reply | Sequence[Reply],
    retry: Retry | None = None,
    timeouts: Timeouts | None = None,
    client: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Fleets]:
    """Serve each reply, or each tuple of replies, in memory. Yield a fleet of these sites."""
    with anyio.fail_after(100_000):
        async with AsyncExitStack() as stack:
            sites: list[ScriptedSite] = []
            for reply in replies:
                several: Any = reply if isinstance(reply, tuple) else (reply,)
                sites.append(await stack.enter_async_context(scripted_site(*several)))
            clients = [s.client(retry=retry, timeouts=timeouts, **client or {}) for s in sites]
            fleet = await stack.enter_async_context(Fleet(clients, **settings))
            yield fleet, sites


async def nothing_left(fleet: Fleet, sites: list[ScriptedSite]) -> None:
    """Assert that a fleet has no request, token, connection or waiter left, and close it."""
    budget = opener_of(fleet)._budget
    assert not budget._on_way
    assert not budget._waiting
    assert 0 <= budget.tokens <= 30
    assert [state.open_replies for state in fleet.states] == [0] * len(sites)
    for client in fleet.clients:
        available, _, waiting = pool_of(client).statistics()
        assert (available, waiting) == (1000, 0)
    await fleet.aclose()
    for site in sites:
        await closed(site)
