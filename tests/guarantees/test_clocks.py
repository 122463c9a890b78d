"""The four deadlines, in virtual time: for each, a reply that violates only this one."""

from __future__ import annotations

import anyio
import pytest
from support.apis import APIS, GPROCHAT, Api, every_api
from support.faults import WAYS, receive_by
from support.loops import virtual

from gprochat_anyio import Client, RequestTimeoutError, Retry, Timeouts
from gprochat_anyio.testing import Hang, Pause, Raw, Refuse, Say, Step, scripted_site

pytestmark = virtual

LIMITS = Timeouts(connect=10, first_chunk=60, idle=30, total=600)


@pytest.mark.parametrize(
    ("api", "way"),
    [(api, way) for api in APIS for way in WAYS if way in WAYS[:3] or api is GPROCHAT],
    ids=str,
)
@pytest.mark.parametrize(
    ("phase", "script", "connect_after", "partial_text", "limit", "at"),
    [
        ("connect", "", 11, "", 10, 10),
        ("first_chunk", [Pause(61)], 5, "", 60, 65),
        ("first_chunk", [Say(""), Pause(61)], 5, "", 60, 65),
        ("first_chunk", [Say(""), Pause(40), Say(b"\xd0"), Pause(40)], 5, "", 60, 65),
        ("first_chunk", [Raw(b"HTTP/1.1 500 Oh\r\nContent-Length: 9\r\n\r\n{")], 5, "", 60, 65),
        ("idle", [Say("a"), Pause(29), Say("b"), Pause(31)], 0, "ab", 30, 59),
        ("idle", [Say("a"), Pause(20), Say(b"\xd0"), Pause(20)], 0, "a", 30, 30),
        ("total", [Pause(19), Say("x"), Pause(1)] * 40, 0, "x" * 30, 600, 600),
    ],
)
async def test_each_clock(
    api: Api,
    way: str,
    phase: str,
    script: str | list[Step],
    connect_after: float,
    partial_text: str,
    limit: float,
    at: float,
) -> None:
    async with scripted_site(script, connect_after=connect_after) as site:
        async with api.client(site.url, timeouts=LIMITS) as client:
            began = anyio.current_time()
            with pytest.raises(RequestTimeoutError) as caught:
                await receive_by(way, client)
            assert anyio.current_time() - began == pytest.approx(at)
        failure = caught.value
        assert isinstance(failure, TimeoutError)
        assert (failure.phase, failure.limit, failure.partial_text) == (phase, limit, partial_text)
        assert failure.elapsed == pytest.approx(limit)
        assert f"Timeouts.{phase}" in str(failure)
        assert len(site.requests) == (phase != "connect")  # no retry by default
        assert not site.open_connections


@every_api
@pytest.mark.parametrize("way", ["ask", "stream"])
async def test_a_trickle_is_caught_by_total(api: Api, way: str) -> None:
    trickle = [step for byte in api.reply("x" * 1000) for step in (Raw(bytes([byte])), Pause(1))]
    limits = Timeouts(first_chunk=500, total=100)
    async with scripted_site(trickle) as site, api.client(site.url, timeouts=limits) as client:
        with pytest.raises(RequestTimeoutError) as caught:
            await receive_by(way, client)
        assert caught.value.phase == "total"
        assert caught.value.elapsed == pytest.approx(100)


async def test_total_is_reported_if_it_ends_before_the_phase() -> None:
    limits = Timeouts(first_chunk=5.5, total=5)
    async with scripted_site(Hang()) as site, site.client(timeouts=limits) as client:
        with pytest.raises(RequestTimeoutError) as caught:
            await client.ask("hello")
        assert caught.value.phase == "total"


@every_api
async def test_a_slow_consumer_causes_no_timeout(api: Api) -> None:
    script = [step for n in range(40) for step in (Say(f"{n:04}"), Pause(0.1))]
    async with scripted_site(script) as site:
        async with api.client(site.url, timeouts=Timeouts(idle=1, total=None)) as client:
            async with client.stream("hello") as chunks:
                async for _ in chunks:
                    await anyio.sleep(5)
        assert chunks.text == "".join(f"{n:04}" for n in range(40))


@every_api
@pytest.mark.parametrize("before", [0, 5])
async def test_total_runs_while_the_consumer_is_behind(api: Api, before: int) -> None:
    """The connection is closed on time. All received text comes before the error."""
    texts = [f"{n:02}" for n in range(20)]
    script = [step for text in texts for step in (Say(text), Pause(0.1))]
    async with scripted_site([*script, Hang()]) as site:
        async with api.client(site.url, timeouts=Timeouts(idle=None, total=50)) as client:
            pieces = []
            chunks = client.stream("hello")
            began = anyio.current_time()
            with pytest.raises(RequestTimeoutError) as caught:
                async with chunks:
                    pieces = [await chunks.receive() for _ in range(before)]
                    await anyio.sleep_until(began + 49)
                    assert site.open_connections
                    await anyio.sleep_until(began + 51)
                    assert not site.open_connections
                    await anyio.sleep(50)
                    async for piece in chunks:
                        pieces.append(piece)
        assert (caught.value.phase, caught.value.limit) == ("total", 50)
        assert caught.value.elapsed == pytest.approx(50)
        assert "".join(pieces) == caught.value.partial_text == chunks.text == "".join(texts)


@every_api
@pytest.mark.parametrize("taken", [0, 3, 9])
async def test_idle_runs_while_the_caller_is_elsewhere(api: Api, taken: int) -> None:
    """The silence of a site is reported after all of its text."""
    texts = [step for n in range(9) for step in (Say(f"{n}"), Pause(20))]
    async with scripted_site([*texts, Hang()]) as site:
        limits = Timeouts(idle=30, total=None)
        async with (
            api.client(site.url, timeouts=limits) as client,
            client.stream("hello") as chunks,
        ):
            began = anyio.current_time()
            for n in range(taken):
                assert await chunks.receive() == str(n)
            await anyio.sleep_until(began + 8 * 20 + 29)
            assert site.open_connections
            await anyio.sleep_until(began + 8 * 20 + 31)
            assert not site.open_connections
            await anyio.sleep(1000)
            with pytest.raises(RequestTimeoutError) as caught:
                await chunks.read()
        assert (caught.value.phase, caught.value.partial_text) == ("idle", "012345678")
        assert caught.value.elapsed == pytest.approx(30)


@every_api
@pytest.mark.parametrize("by", ["stream", "stream_to"])
async def test_idle_stops_while_the_connection_is_paused(api: Api, by: str) -> None:
    """It starts again when the connection resumes."""
    text = "x" * 70_000
    async with scripted_site([Say(text), Hang()]) as site:
        limits = Timeouts(idle=30, total=None)
        async with api.client(site.url, timeouts=limits) as client:
            began = anyio.current_time()
            with pytest.raises(RequestTimeoutError) as caught:
                if by == "stream":
                    async with client.stream("hello") as chunks:
                        await anyio.sleep(1000)
                        assert site.open_connections
                        await chunks.read()
                else:
                    await _stream_to_after(client, 1000)
            assert anyio.current_time() - began == pytest.approx(1030)
        assert (caught.value.phase, caught.value.partial_text) == ("idle", text)
        assert caught.value.elapsed == pytest.approx(30)


async def _stream_to_after(client: Client, seconds: float) -> None:
    """Stream a reply to a channel without a buffer, which is read only after a delay."""
    send, receive = anyio.create_memory_object_stream[str](0)
    failures = []

    async def forward() -> None:
        try:
            await client.stream_to("hello", send)
        except RequestTimeoutError as failure:
            failures.append(failure)

    async with anyio.create_task_group() as tasks, receive:
        tasks.start_soon(forward)
        await anyio.sleep(seconds)
        async for _ in receive:
            pass
    raise failures[0]


async def test_total_runs_while_the_callers_channel_is_full() -> None:
    script = [step for n in range(9) for step in (Say(f"{n}"), Pause(1))]
    async with scripted_site(script) as site:
        async with site.client(timeouts=Timeouts(idle=5, total=50)) as client:
            send, receive = anyio.create_memory_object_stream[str](2)
            with receive, pytest.raises(RequestTimeoutError) as caught:
                await client.stream_to("hello", send)
        assert anyio.current_time() == pytest.approx(50)
        # the text that the channel had no room for is buffered
        assert (caught.value.phase, caught.value.partial_text) == ("total", "012345678")


async def test_only_total_limits_the_wait_for_a_slot() -> None:
    slow = [Say("a"), Pause(25), Say("b"), Pause(25)]
    async with scripted_site(slow) as site:
        limits = Timeouts(connect=1, first_chunk=1, idle=30, total=60)
        async with site.client(timeouts=limits, max_connections=1) as client:
            errors: list[RequestTimeoutError] = []

            async def ask() -> None:
                try:
                    assert (await client.ask("hello")).text == "ab"
                except RequestTimeoutError as error:
                    errors.append(error)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                tasks.start_soon(ask)
        assert [e.phase for e in errors] == ["total"]
        assert anyio.current_time() == pytest.approx(60, abs=1)


async def test_total_spans_attempts_and_waits() -> None:
    async with scripted_site([Pause(40), Refuse(503, "busy")]) as site:
        retry = Retry(attempts=9, backoff=0)
        async with site.client(timeouts=Timeouts(total=100), retry=retry) as client:
            with pytest.raises(RequestTimeoutError) as caught:
                await client.ask("hello")
        assert caught.value.phase == "total"
        assert len(site.requests) == 3


async def test_a_call_overrides_field_by_field() -> None:
    async with scripted_site(Pause(1000)) as site:
        async with site.client(timeouts=Timeouts(first_chunk=7)) as client:
            with pytest.raises(RequestTimeoutError) as caught:
                await client.ask("hello", timeouts=Timeouts(total=5))
            assert (caught.value.phase, caught.value.limit) == ("total", 5)
            with pytest.raises(RequestTimeoutError) as caught:
                await client.ask("hello", timeouts=Timeouts(idle=1))
            assert (caught.value.phase, caught.value.limit) == ("first_chunk", 7)


@every_api
async def test_no_limits(api: Api) -> None:
    limits = Timeouts(connect=None, first_chunk=None, idle=None, total=None)
    script = [Pause(5000), Say("a"), Pause(5000), Say("b")]
    async with scripted_site(script, connect_after=5000) as site:
        async with api.client(site.url, timeouts=limits) as client:
            reply_ = await client.ask("hello")
    assert reply_.text == "ab"
    timing = reply_.timing
    assert (timing.connect, timing.first_chunk, timing.total) == pytest.approx((5000, 5000, 15000))
    assert (timing.chunks, timing.characters, timing.attempts) == (2, 2, 1)
