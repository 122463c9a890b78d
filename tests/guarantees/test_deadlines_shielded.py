"""Deadlines in a shielded scope whose caller was cancelled, where nothing else would end the
wait."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from support.apis import Api, every_api
from support.loops import virtual

from gprochat_anyio import RequestTimeoutError, Timeouts
from gprochat_anyio.testing import Hang, Pause, Say, live_site, scripted_site

IN_VIRTUAL_TIME = virtual


@every_api
@IN_VIRTUAL_TIME
@pytest.mark.parametrize("reads", [1, 2, 5])
@pytest.mark.parametrize(
    ("limits", "phase", "after"),
    [(Timeouts(idle=30, total=None), "idle", 30), (Timeouts(idle=None, total=300), "total", 300)],
    ids=["idle", "total"],
)
async def test_deadlines_fire_in_a_shielded_scope(
    api: Api, reads: int, limits: Timeouts, phase: str, after: float
) -> None:
    texts = [step for n in range(reads) for step in (Say(f"{n}"), Pause(0.1))]
    caught: Any = None
    async with (
        scripted_site([*texts, Hang()]) as site,
        api.client(site.url, timeouts=limits) as client,
    ):
        with anyio.CancelScope() as outer:
            async with client.stream("hi") as chunks:
                for number in range(reads):
                    assert await chunks.receive() == f"{number}"
                latest = 0.1 * (reads - 1) if phase == "idle" else 0.0
                outer.cancel()
                with anyio.fail_after(10_000, shield=True):
                    with pytest.raises(RequestTimeoutError) as caught:
                        await chunks.receive()
                    assert anyio.current_time() == pytest.approx(latest + after)
                    assert not site.open_connections
        assert caught.value.phase == phase
        assert caught.value.partial_text == "".join(map(str, range(reads)))


async def test_deadlines_fire_in_a_shielded_scope_on_a_socket() -> None:
    more = [anyio.Event() for _ in range(4)]
    texts = [step for gate in more for step in (Say("text"), gate.wait)]
    async with live_site([*texts, Hang()]) as site:
        limits = Timeouts(idle=0.3, total=None)
        async with site.client() as client:
            with anyio.CancelScope() as outer:
                async with client.stream("hi", timeouts=limits) as chunks:
                    for gate in more:
                        await chunks.receive()
                        gate.set()
                    outer.cancel()
                    with anyio.fail_after(5, shield=True):
                        with pytest.raises(RequestTimeoutError):
                            await chunks.receive()
                        await site.until(lambda: not site.open_connections)


@every_api
@IN_VIRTUAL_TIME
async def test_a_reply_continues_in_a_shielded_scope(api: Api) -> None:
    texts = [step for n in range(9) for step in (Say(f"{n}"), Pause(20))]
    async with scripted_site(texts) as site:
        async with api.client(site.url, timeouts=Timeouts(idle=30, total=None)) as client:
            with anyio.CancelScope() as outer:
                async with client.stream("hi") as chunks:
                    outer.cancel()
                    with anyio.fail_after(1000, shield=True):
                        assert await chunks.read() == "012345678"
                        assert (await client.ask("hi")).text == "012345678"
