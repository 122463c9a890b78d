"""The event loop's timer, as the reactor sets it."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from gprochat_anyio.transport._loops import current_loop


@pytest.mark.parametrize("times", [(-1.0,), (-1.0, -2.0), (-1.0, 60.0), (60.0, -1.0), (60.0, 0.01)])
async def test_the_earliest_time_counts_overdue_or_not(times: Sequence[float]) -> None:
    loop, fired = current_loop(), anyio.Event()
    loop.start(None, poll=lambda: None, expire=fired.set)
    try:
        for seconds in times:
            loop.arm(loop.clock() + seconds)
        with anyio.fail_after(10):
            await fired.wait()
    finally:
        loop.stop()
