"""A limiter beside other limits: spacing, and a consumer that shares its fan-out's limiter."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from support.loops import virtual

from gprochat_anyio import (
    Failed,
    Finished,
    Limiter,
    RequestTimeoutError,
    Retry,
    Timeouts,
    fan_out,
    gather,
)
from gprochat_anyio.testing import Pause, Refuse, Request, Say, Script, scripted_site

pytestmark = virtual

NUMBERS = [str(number) for number in range(16)]


@pytest.mark.parametrize("by", ["limiter", "max_connections"])
async def test_starts_are_spaced_as_they_are_sent(by: str) -> None:
    """A start that is acquired while another limit is exhausted must not be used later."""
    ends = iter([10.0, 9.8, 9.6, 9.4])

    def answer(request: Request) -> Script:
        return Say("a"), Pause(next(ends, 1.0))

    client_of: dict[str, Any] = {"limiter": Limiter(max_at_once=4)} if by == "limiter" else {by: 4}
    async with scripted_site(answer) as site, site.client(**client_of) as client:
        await gather(client, NUMBERS, max_per_second=5)
        assert min(b.time - a.time for a, b in pairwise(site.requests)) == pytest.approx(0.2)


@pytest.mark.slow
async def test_a_consumer_may_use_the_limiter_of_its_fan_out() -> None:
    def large(request: Request) -> Script:
        return (Say(request.prompt * 100_000) for _ in range(5))

    limiter = Limiter(max_at_once=2)
    async with scripted_site(large) as site, site.client() as client:
        async with fan_out(client, NUMBERS[:4], limiter=limiter) as events:
            async for event in events:
                assert not isinstance(event, Failed), event.error  # `total`, after ten minutes
                if not isinstance(event, Finished):
                    await gather(client, ["and"], limiter=limiter)


async def test_a_start_that_comes_too_late_occupies_no_connection() -> None:
    pace = Limiter(max_per_second=0.1)
    async with scripted_site(lambda _: Say("a")) as site:
        async with site.client(limiter=pace, max_connections=1) as client:
            await client.ask("a")
            with pytest.raises(RequestTimeoutError):
                await client.ask("b", timeouts=Timeouts(total=5))
            assert (await client.ask("c")).text == "a"


async def test_two_limiters_retry_as_often_as_one() -> None:
    async def asked(**limiters: Any) -> int:
        async with scripted_site(lambda _: Refuse(429)) as site:
            async with site.client(limiter=Limiter(), retry=Retry(attempts=3)) as client:
                await gather(client, ["a"], **limiters)
            return len(site.requests)

    assert await asked(limiter=Limiter(adaptive=False)) == await asked() == 3
