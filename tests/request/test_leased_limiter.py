"""LeasedLimiter: it grants exactly the starts that it has leased."""

from __future__ import annotations

import anyio
import pytest
from support.loops import virtual

from gprochat_anyio import Retry, gather
from gprochat_anyio._request.chat_client import opener_of
from gprochat_anyio._request.leased_limiter import LeasedLimiter
from gprochat_anyio._request.request_events import Observed
from gprochat_anyio.testing import Pause, Refuse, Request, Say, Script, scripted_site


def slow(_: Request) -> Script:
    return Pause(10.0), Say("done")


def leased(*, has_rate: bool = True) -> tuple[LeasedLimiter, list[tuple[Observed, float]]]:
    told: list[tuple[Observed, float]] = []
    limiter = LeasedLimiter(
        max_at_once=8, has_rate=has_rate, on_retry_after=lambda *pause: told.append(pause)
    )
    return limiter, told


@virtual
async def test_nothing_starts_without_a_lease() -> None:
    limiter, _ = leased()
    async with scripted_site(slow) as site, site.client(limiter=limiter) as client:
        async with anyio.create_task_group() as tg:
            for _ in range(8):
                tg.start_soon(client.ask, "hi")
            await anyio.sleep(100)
            assert not site.requests
            assert limiter.demand == (0, 8, 0)
            limiter.lease(3, None)
            await anyio.sleep(1)
            assert limiter.demand == (3, 5, 3)
            limiter.lease(1, None)
            assert limiter.demand == (3, 5, 3), "running requests continue"
            await anyio.sleep(10)
            assert limiter.demand == (1, 4, 4)
            limiter.lease(100, None)
            await anyio.sleep(1)
            assert limiter.demand == (5, 0, 8)


@virtual
async def test_a_leased_rate_spaces_starts_and_changes() -> None:
    limiter, _ = leased()
    began = anyio.current_time()
    async with scripted_site("yes") as site, site.client(limiter=limiter) as client:
        async with anyio.create_task_group() as tg:
            limiter.lease(8, 0.1)
            tg.start_soon(gather, client, ["hi"] * 5)
            await anyio.sleep(25)
            limiter.lease(8, 0.5)  # the next start is due 2 s after the last one
            await anyio.sleep(3)
            limiter.lease(8, 0.0)
            await anyio.sleep(100)
            limiter.lease(8, None)
        times = [round(request.time - began) for request in site.requests]
    assert times == [10, 20, 25, 27, 128]


@virtual
@pytest.mark.parametrize("is_known", [True, False])
async def test_a_pause_from_another_process(is_known: bool) -> None:
    limiter, told = leased(has_rate=False)
    limiter.lease(8, None)
    async with scripted_site("yes") as site, site.client(limiter=limiter) as client:
        if is_known:
            await client.ask("before")
        began = anyio.current_time()
        limiter.pause(Observed("another.test", 80), 9.0)
        limiter.pause(opener_of(client).observers.endpoint, 7.0)
        await client.ask("after")
        assert anyio.current_time() - began == pytest.approx(7.0, abs=0.01)
    assert not told


@virtual
async def test_a_retry_after_is_reported_and_a_refusal_without_one_is_not() -> None:
    replies: list[Script] = [Refuse(429, retry_after=5), Refuse(429), Say("yes")]
    limiter, told = leased(has_rate=False)
    limiter.lease(8, None)
    async with scripted_site(lambda _: replies.pop(0)) as site:
        async with site.client(limiter=limiter, retry=Retry(attempts=5)) as client:
            await client.ask("hi")
    ((endpoint, seconds),) = told
    assert endpoint.host
    assert seconds == pytest.approx(5.0, rel=0.3)  # with jitter
