"""The four clocks, in virtual time: each catches what violates only it."""

from __future__ import annotations

import anyio
import pytest
from faults import WAYS, receive_by
from loops import VIRTUAL_LOOPS
from scripted import HEAD, LAST_CHUNK, Script, chunk, error, memory_site, reply

from gprochat_anyio import Client, RequestTimeoutError, Retry, Timeouts

pytestmark = pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)

LIMITS = Timeouts(connect=10, first_chunk=60, idle=30, total=600)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("phase", "script", "connect_after", "partial_text", "limit", "at"),
    [
        ("connect", (), 11.0, "", 10, 10),
        ("first_chunk", (61.0,), 5.0, "", 60, 65),
        ("first_chunk", (HEAD, 61.0), 5.0, "", 60, 65),
        ("first_chunk", (HEAD, 40.0, b"1\r\n\xd0\r\n", 40.0), 5.0, "", 60, 65),
        ("first_chunk", (b"HTTP/1.1 500 Oh\r\nContent-Length: 9\r\n\r\n{", 61.0), 5.0, "", 60, 65),
        ("idle", (HEAD + chunk("a"), 29.0, chunk("b"), 31.0), 0.0, "ab", 30, 59),
        ("idle", (HEAD + chunk("a"), 20.0, chunk(b"\xd0"), 20.0), 0.0, "a", 30, 30),
        ("total", (HEAD, *[chunk("x"), 20.0] * 40), 0.0, "x" * 30, 600, 600),
    ],
)
async def test_each_clock(
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    phase: str,
    script: Script,
    connect_after: float,
    partial_text: str,
    limit: float,
    at: float,
) -> None:
    async with memory_site(monkeypatch, script, connect_after=connect_after) as site:
        async with Client(site.url, timeouts=LIMITS) as client:
            began = anyio.current_time()
            with pytest.raises(RequestTimeoutError) as caught:
                await receive_by(way, client)
            assert anyio.current_time() - began == pytest.approx(at)
        failure = caught.value
        assert isinstance(failure, TimeoutError)
        assert (failure.phase, failure.limit, failure.partial_text) == (phase, limit, partial_text)
        assert failure.elapsed == pytest.approx(limit)
        assert f"Timeouts.{phase}" in str(failure)
        assert len(site.requests) == (phase != "connect")  # never tried again unless asked to
        if site.open:
            await site.closed.wait()  # in virtual time: when the script looks up


@pytest.mark.parametrize("way", ["ask", "stream"])
async def test_a_trickle_is_caught_by_total(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    trickle: Script = tuple(step for byte in reply("x" * 1000) for step in (bytes([byte]), 1.0))
    limits = Timeouts(first_chunk=500, total=100)
    async with (
        memory_site(monkeypatch, trickle) as site,
        Client(site.url, timeouts=limits) as client,
    ):
        with pytest.raises(RequestTimeoutError) as caught:
            await receive_by(way, client)
        assert caught.value.phase == "total"
        assert caught.value.elapsed == pytest.approx(100)


async def test_a_slow_consumer_is_never_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [chunk(f"{n:04}") for n in range(40)]
    script: Script = (HEAD, *[step for text in texts for step in (text, 0.1)], LAST_CHUNK)
    async with memory_site(monkeypatch, script) as site:
        async with Client(site.url, timeouts=Timeouts(idle=1, total=None)) as client:
            async with client.stream("hello") as chunks:
                async for _ in chunks:
                    await anyio.sleep(5)
        assert chunks.text == "".join(f"{n:04}" for n in range(40))


@pytest.mark.parametrize("before", [0, 5])
async def test_total_runs_while_the_consumer_is_behind(
    monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """Soon after the first text, and once a task watches the clocks."""
    script: Script = (HEAD, *[step for n in range(20) for step in (chunk(f"{n:02}"), 0.1)])
    async with memory_site(monkeypatch, script) as site:
        async with Client(site.url, timeouts=Timeouts(total=50)) as client:
            pieces = []
            chunks = client.stream("hello")
            with pytest.raises(RequestTimeoutError) as caught:
                async with chunks:
                    pieces = [await chunks.receive() for _ in range(before)]
                    await anyio.sleep(100)
                    async for piece in chunks:
                        pieces.append(piece)
        assert caught.value.phase == "total"
        assert caught.value.limit == 50
        # everything that was received comes first
        assert "".join(pieces) == caught.value.partial_text == chunks.text
        assert len(pieces) == max(before, 1)


async def test_idle_starts_anew_with_each_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the caller takes, and whether or not a task watches the clocks."""
    script: Script = (HEAD, *[step for n in range(9) for step in (chunk(f"{n}"), 20.0)], 100.0)
    async with memory_site(monkeypatch, script) as site:
        limits = Timeouts(idle=30, total=None)
        async with Client(site.url, timeouts=limits) as client, client.stream("hello") as chunks:
            for n in range(9):
                assert await chunks.receive() == str(n)
                if n % 3 == 2:
                    await anyio.sleep(45)
            began = anyio.current_time()
            with pytest.raises(RequestTimeoutError) as caught:
                await chunks.receive()
            assert anyio.current_time() - began == pytest.approx(30)
        assert caught.value.phase == "idle"
        assert caught.value.elapsed == pytest.approx(30)


async def test_total_runs_while_the_callers_channel_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script: Script = (HEAD, *[step for n in range(9) for step in (chunk(f"{n}"), 1.0)], LAST_CHUNK)
    async with memory_site(monkeypatch, script) as site:
        async with Client(site.url, timeouts=Timeouts(idle=5, total=50)) as client:
            send, receive = anyio.create_memory_object_stream[str](2)
            with receive, pytest.raises(RequestTimeoutError) as caught:
                await client.stream_to("hello", send)
        assert anyio.current_time() == pytest.approx(50)
        assert (caught.value.phase, caught.value.partial_text) == ("total", "012")


async def test_waiting_for_a_slot_runs_on_no_clock_but_total(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow: Script = (HEAD + chunk("a"), 25.0, chunk("b"), 25.0, LAST_CHUNK)
    async with memory_site(monkeypatch, slow) as site:
        limits = Timeouts(connect=1, first_chunk=1, idle=30, total=60)
        async with Client(site.url, timeouts=limits, max_connections=1) as client:
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


async def test_total_covers_attempts_and_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    script: Script = (40.0, error(503, "busy"))
    async with memory_site(monkeypatch, script) as site:
        retry = Retry(attempts=9, backoff=0)
        async with Client(site.url, timeouts=Timeouts(total=100), retry=retry) as client:
            with pytest.raises(RequestTimeoutError) as caught:
                await client.ask("hello")
        assert caught.value.phase == "total"
        assert len(site.requests) == 3


async def test_a_call_overrides_field_by_field(monkeypatch: pytest.MonkeyPatch) -> None:
    async with memory_site(monkeypatch, (1000.0,)) as site:
        async with Client(site.url, timeouts=Timeouts(first_chunk=7)) as client:
            with pytest.raises(RequestTimeoutError) as caught:
                await client.ask("hello", timeouts=Timeouts(total=5))
            assert (caught.value.phase, caught.value.limit) == ("total", 5)
            with pytest.raises(RequestTimeoutError) as caught:
                await client.ask("hello", timeouts=Timeouts(idle=1))
            assert (caught.value.phase, caught.value.limit) == ("first_chunk", 7)


async def test_no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Timeouts(connect=None, first_chunk=None, idle=None, total=None)
    script: Script = (5000.0, HEAD + chunk("a"), 5000.0, chunk("b") + LAST_CHUNK)
    async with memory_site(monkeypatch, script, connect_after=5000) as site:
        async with Client(site.url, timeouts=limits) as client:
            reply_ = await client.ask("hello")
    assert reply_.text == "ab"
    timing = reply_.timing
    assert (timing.connect, timing.first_chunk, timing.total) == pytest.approx((5000, 5000, 15000))
    assert (timing.chunks, timing.characters, timing.attempts) == (2, 2, 1)
