"""A wait for other tasks to block."""

from __future__ import annotations

import anyio
from anyio.lowlevel import checkpoint

_TURNS = 10


async def all_tasks_blocked() -> None:
    """Wait until all other tasks wait.

    On asyncio, AnyIO's function looks every 0.1 s. Most tasks need a few turns of the event loop.
    """
    for _ in range(_TURNS):
        await checkpoint()
    await anyio.wait_all_tasks_blocked()
