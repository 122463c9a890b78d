"""Cancellation of an operation at each of its suspensions, and a check of what it leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import anyio
from support.reactors import running_reactor
from support.servers import client_context, open_sockets

from gprochat_anyio.testing import Injection, cancelled, injections
from gprochat_anyio.transport._pool import Pool
from gprochat_anyio.transport._target import Target

from .exchanges import idle

Operation = Callable[[Pool, Target], Awaitable[object]]


async def at_every_suspension(
    target: Target,
    operation: Operation,
    *ports: int,
    prepare: Operation | None = None,
    works_after: bool = True,
    limit: int = 1,
) -> int:
    """Cancel an operation at each of its suspensions, in every way.

    :param ports: The ports of all servers that it connects to.
    :param prepare: Prepares each pool.
    :param works_after: True if the next request can succeed.
    :return: The maximum number of suspensions.
    """
    most = 0
    for moment, native in injections():
        at = 0
        while True:
            at += 1
            pool = Pool(max_connections=limit, ssl_context=client_context())
            if prepare is not None:
                await prepare(pool, target)
            end = await cancelled(Injection(at, moment, native), partial(operation, pool, target))
            place = f"at {at}, {moment}, {'native' if native else 'scope'}"
            assert open_sockets(*ports) == idle(pool), f"a socket is open: {place}"
            assert pool._free == limit - idle(pool), f"a slot is lost: {place}"
            assert not pool._waiting, place
            if works_after:
                assert await operation(pool, target) == b"ok", place
            pool.close()
            assert open_sockets(*ports) == 0, f"after closing: {place}"
            assert running_reactor() is None, place
            if end == "not reached":
                break
            # a scope's cancellation may come too late for an operation that has just ended
            assert end == "cancelled" or not native or moment == "after", place
        most = max(most, at - 1)
    return most


@asynccontextmanager
async def bounded() -> AsyncIterator[None]:
    with anyio.fail_after(60):
        yield
