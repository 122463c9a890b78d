"""A limiter beside other limits: spacing, and the consumer of a fan-out that uses the same one."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from loops import VIRTUAL_LOOPS

from gprochat_anyio import Failed, Finished, Limiter, fan_out, gather
from gprochat_anyio.testing import Pause, Request, Say, Script, scripted_site

pytestmark = pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)

NUMBERS = [str(number) for number in range(16)]


@pytest.mark.parametrize("by", ["limiter", "max_connections"])
async def test_starts_are_spaced_as_they_are_sent(by: str) -> None:
    """A start that is acquired while another limit has no room is not sent at once."""
    ends = iter([10.0, 9.8, 9.6, 9.4])

    def answer(request: Request) -> Script:
        return Say("a"), Pause(next(ends, 1.0))

    client_of: dict[str, Any] = {"limiter": Limiter(max_at_once=4)} if by == "limiter" else {by: 4}
    async with scripted_site(answer) as site, site.client(**client_of) as client:
        await gather(client, NUMBERS, max_per_second=5)
        assert min(b.time - a.time for a, b in pairwise(site.requests)) == pytest.approx(0.2)


async def test_a_consumer_may_ask_by_the_limiter_that_its_fan_out_has() -> None:
    def large(request: Request) -> Script:
        return (Say(request.prompt * 100_000) for _ in range(20))

    limiter = Limiter(max_at_once=2)
    async with scripted_site(large) as site, site.client() as client:
        async with fan_out(client, NUMBERS[:4], limiter=limiter) as events:
            async for event in events:
                assert not isinstance(event, Failed), event.error  # `total`, after ten minutes
                if not isinstance(event, Finished):
                    await gather(client, ["and"], limiter=limiter)
