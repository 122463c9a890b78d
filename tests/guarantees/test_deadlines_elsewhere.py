"""Deadlines fire on time while the caller awaits something else, and `idle` tolerates slow
consumers."""

from __future__ import annotations

import anyio
import pytest
from support.apis import Api, every_api
from support.loops import virtual

from gprochat_anyio import Reply, RequestTimeoutError, Timeouts, as_completed
from gprochat_anyio.testing import Hang, Pause, Say, ScriptedSite, live_site, scripted_site

IN_VIRTUAL_TIME = virtual

LIMITS = pytest.mark.parametrize(
    ("limits", "phase", "after"),
    [(Timeouts(idle=30, total=None), "idle", 30), (Timeouts(idle=None, total=300), "total", 300)],
    ids=["idle", "total"],
)
PIECE = "x" * 1000


async def all_closed(site: ScriptedSite) -> float:
    """Wait until the site has seen every connection close, and return the time."""
    with anyio.fail_after(10_000, shield=True):
        await site.until(lambda: not site.open_connections)
    return anyio.current_time()


# While the caller is elsewhere


@every_api
@IN_VIRTUAL_TIME
@LIMITS
@pytest.mark.parametrize("reads", [0, 1, 2, 3, 5])
async def test_deadlines_fire_while_the_caller_is_elsewhere(
    api: Api, reads: int, limits: Timeouts, phase: str, after: float
) -> None:
    """The site sees the end on time. The caller gets all text, then the error."""
    texts = [step for n in range(5) for step in (Say(f"{n}"), Pause(0.1))]
    async with (
        scripted_site([*texts, Hang()]) as site,
        api.client(site.url, timeouts=limits) as client,
    ):
        async with client.stream("hi") as chunks, anyio.create_task_group() as tasks:
            closed_at: list[float] = []

            async def watch() -> None:
                closed_at.append(await all_closed(site))

            tasks.start_soon(watch)
            for number in range(reads):
                assert await chunks.receive() == f"{number}"
            await anyio.sleep_until(5000)
            latest = 0.4 if phase == "idle" else 0.0
            assert closed_at == [pytest.approx(latest + after)]
            with pytest.raises(RequestTimeoutError) as caught:
                await chunks.read()
            assert caught.value.phase == phase
            assert chunks.text == caught.value.partial_text == "01234"


async def test_total_fires_while_the_caller_is_elsewhere_on_a_socket() -> None:
    async with live_site([Say("text"), Hang()]) as site, site.client() as client:
        async with client.stream("hi", timeouts=Timeouts(total=0.5)) as chunks:
            with anyio.fail_after(5):
                await site.until(lambda: not site.open_connections)
            assert await chunks.receive() == "text"
            with pytest.raises(RequestTimeoutError):
                await chunks.receive()


@every_api
@IN_VIRTUAL_TIME
async def test_total_fires_in_a_fan_out_whose_consumer_is_elsewhere(api: Api) -> None:
    async with scripted_site([Say("text"), Hang()]) as site, api.client(site.url) as client:
        prompts = map(str, range(20))
        async with as_completed(client, prompts, timeouts=Timeouts(total=50)) as outcomes:
            first = await outcomes.receive()
            assert isinstance(first.error, RequestTimeoutError)
            await anyio.sleep_until(5000)
            errors = [outcome.error async for outcome in outcomes]
            assert all(isinstance(error, RequestTimeoutError) for error in errors)
        assert not site.open_connections


# `idle` and the consumer


@IN_VIRTUAL_TIME
async def test_idle_stops_while_the_socket_is_paused() -> None:
    """While more than 64 KiB wait, the consumer is the slow one, not the site."""
    script = [step for _ in range(200) for step in (Say(PIECE), Pause(0.01))]
    async with scripted_site(script) as site:
        async with site.client(timeouts=Timeouts(idle=30, total=None)) as client:
            async with client.stream("hi") as chunks:
                await anyio.sleep(10_000)
                waiting = chunks.timing.characters
                assert 64 * 1024 <= waiting < 64 * 1024 + len(PIECE)
                assert len(await chunks.read()) == 200 * len(PIECE)


@IN_VIRTUAL_TIME
async def test_idle_starts_again_when_the_socket_resumes() -> None:
    script = [*[Say(PIECE)] * 66, Hang()]
    async with scripted_site(script) as site:
        async with site.client(timeouts=Timeouts(idle=30, total=None)) as client:
            async with client.stream("hi") as chunks:
                await anyio.sleep_until(1000)
                assert site.open_connections
                with pytest.raises(RequestTimeoutError) as caught:
                    await chunks.read()
                assert anyio.current_time() == pytest.approx(1030)
                assert caught.value.elapsed == pytest.approx(30)
                assert caught.value.partial_text == PIECE * 66


@IN_VIRTUAL_TIME
async def test_idle_runs_while_the_consumer_is_behind_and_the_socket_is_not_paused() -> None:
    """The site is silent. The error comes after all text."""
    script = [*[Say(PIECE)] * 60, Hang()]
    async with scripted_site(script) as site:
        async with site.client(timeouts=Timeouts(idle=30, total=None)) as client:
            async with client.stream("hi") as chunks:
                assert await all_closed(site) == pytest.approx(30)
                with pytest.raises(RequestTimeoutError) as caught:
                    await chunks.read()
                assert caught.value.partial_text == chunks.text == PIECE * 60


@every_api
@IN_VIRTUAL_TIME
async def test_no_deadline_applies_to_a_complete_reply(api: Api) -> None:
    limits = Timeouts(first_chunk=5, idle=5, total=10)
    async with scripted_site([Say(PIECE)] * 3) as site:
        async with api.client(site.url, timeouts=limits) as client, client.stream("hi") as chunks:
            await anyio.sleep(1000)
            assert await chunks.read() == PIECE * 3
            assert isinstance(await client.ask("hi"), Reply)
