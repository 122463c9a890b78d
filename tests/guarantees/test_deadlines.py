"""Further deadlines: `total` in every phase, held-back text at a timeout, and slow consumers."""

from __future__ import annotations

import anyio
import pytest
from guarantees.test_faults import in_memory, prompt_of, settings_of
from support.faults import FAULTS, WAYS, Fault, assert_ours, receive_by
from support.loops import virtual

from gprochat_anyio import Client, RequestTimeoutError, Timeouts
from gprochat_anyio.testing import Hang, Pause, Raw, Say, scripted_site

HELD_BACK = [Raw(b"15\r\nInter"), Hang()]
"""The beginning of the failure marker, which is a single chunk."""

pytestmark = virtual


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.clock], ids=str)
@pytest.mark.parametrize("way", WAYS[:3])
async def test_total_fires_in_every_phase(
    monkeypatch: pytest.MonkeyPatch, way: str, fault: Fault
) -> None:
    limits = Timeouts(connect=None, first_chunk=None, idle=None, total=50)
    async with in_memory(fault, monkeypatch) as site:
        async with Client(**settings_of(fault, site.url), timeouts=limits) as client:
            if fault.phase == "kept connection":
                await client.ask("an earlier prompt")
            began = anyio.current_time()
            with pytest.raises(RequestTimeoutError) as caught:
                await receive_by(way, client, prompt_of(fault))
            assert anyio.current_time() - began == pytest.approx(50)
        assert_ours(caught.value, RequestTimeoutError, fault.text)
        assert (caught.value.phase, caught.value.limit) == ("total", 50)


@pytest.mark.parametrize("way", WAYS[:3])
async def test_idle_starts_with_the_first_text_however_late_that_is(way: str) -> None:
    """`idle` is shorter than the rest of `first_chunk`, whose deadline was checked before."""
    async with scripted_site([Pause(20), Say("one"), Hang()]) as site:
        async with site.client(timeouts=Timeouts(first_chunk=60, idle=5)) as client:
            began = anyio.current_time()
            with pytest.raises(RequestTimeoutError) as caught:
                await receive_by(way, client)
            assert anyio.current_time() - began == pytest.approx(25)
    assert_ours(caught.value, RequestTimeoutError, "one")
    assert caught.value.phase == "idle"
    assert caught.value.elapsed == pytest.approx(5)


@pytest.mark.parametrize("limits", [Timeouts(idle=30), Timeouts(idle=None, total=35)], ids=repr)
@pytest.mark.parametrize("reads", [1, 2, 5])
@pytest.mark.parametrize("way", WAYS)
async def test_text_that_was_held_back_comes_before_the_timeout(
    way: str, reads: int, limits: Timeouts
) -> None:
    """It could have been the failure marker."""
    texts = [step for n in range(reads) for step in (Say(f"{n}"), Pause(0.1))]
    async with scripted_site([*texts, *HELD_BACK]) as site:
        async with site.client(timeouts=limits) as client:
            pieces: list[str] = []
            with pytest.raises(RequestTimeoutError) as caught:
                await receive_by(way, client, into=pieces)
    text = "".join(f"{n}" for n in range(reads)) + "Inter"
    assert_ours(caught.value, RequestTimeoutError, text)
    assert caught.value.phase == ("total" if limits.idle is None else "idle")
    assert way == "ask" or "".join(pieces) == text


@pytest.mark.parametrize("size", [0, 1, 2, 3])
async def test_text_that_was_held_back_waits_for_room(size: int) -> None:
    script = [Say("a"), Pause(0.1), Say("b"), Pause(0.1), *HELD_BACK]
    async with scripted_site(script) as site:
        async with site.client(timeouts=Timeouts(idle=30)) as client:
            send, receive = anyio.create_memory_object_stream[str](size)
            failures: list[RequestTimeoutError] = []
            pieces: list[str] = []

            async def forward() -> None:
                try:
                    await client.stream_to("hello", send)
                except RequestTimeoutError as failure:
                    failures.append(failure)

            async with receive, anyio.create_task_group() as tasks:
                tasks.start_soon(forward)
                if size < 2:  # leaves room for the text itself
                    pieces += [await receive.receive() for _ in range(2)]
                await anyio.sleep(100)
                pieces += [piece async for piece in receive]
    assert pieces == ["a", "b", "Inter"]
    assert (failures[0].phase, failures[0].partial_text) == ("idle", "abInter")


@pytest.mark.parametrize("reads", [1, 5])
async def test_text_held_back_until_total_expires_while_the_consumer_is_elsewhere(
    reads: int,
) -> None:
    texts = [step for n in range(reads) for step in (Say(f"{n}"), Pause(0.1))]
    script = [*texts, Raw(b"1\r\na\r\n15\r\nInter"), Hang()]
    async with scripted_site(script) as site:
        async with site.client(timeouts=Timeouts(idle=None, total=50)) as client:
            async with client.stream("hello") as chunks:
                pieces = [await chunks.receive() for _ in range(reads + 1)]
                await anyio.sleep(100)
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await chunks.receive()
                assert scope.cancelled_caught  # a checkpoint, which loses nothing
                with pytest.raises(RequestTimeoutError) as caught:
                    async for piece in chunks:
                        pieces.append(piece)  # noqa: PERF401 - until the error
                with pytest.raises(RequestTimeoutError):
                    await chunks.receive()
                assert caught.value.phase == "total"
                assert "".join(pieces) == caught.value.partial_text == chunks.text
                assert pieces[-1] == "Inter"


@pytest.mark.parametrize("way", WAYS[:3])
async def test_deadlines_of_a_queued_request_have_not_started(way: str) -> None:
    slow = [Pause(9), Say("a"), Pause(9), Say("b"), Pause(9)]
    async with scripted_site(slow, connect_after=9) as site:
        limits = Timeouts(connect=10, first_chunk=10, idle=10, total=None)
        async with site.client(timeouts=limits, max_connections=2) as client:
            texts: list[str] = []

            async def ask() -> None:
                texts.append(await receive_by(way, client))

            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(ask)
        assert texts == ["ab"] * 20
        assert anyio.current_time() == pytest.approx(10 * 27 + 9)


@pytest.mark.parametrize("pause", [29.0, 31.0, 1000.0])
@pytest.mark.parametrize("before", range(6))
async def test_a_consumer_that_pauses_causes_no_timeout(before: int, pause: float) -> None:
    """Even if the site is slow too, just within `idle`, before and after the pause."""
    script = [step for n in range(6) for step in (Say(f"{n}"), Pause(29))]
    async with scripted_site(script) as site:
        async with site.client(timeouts=Timeouts(idle=30, total=None)) as client:
            async with client.stream("hello") as chunks:
                for _ in range(before):
                    await chunks.receive()
                await anyio.sleep(pause)
                await chunks.read()
            assert chunks.text == "012345"
            send, receive = anyio.create_memory_object_stream[str](0)
            async with receive, anyio.create_task_group() as tasks:
                tasks.start_soon(client.stream_to, "hello", send)
                for _ in range(before):
                    await receive.receive()
                await anyio.sleep(pause)
                assert "".join([text async for text in receive]) == "012345"[before:]


async def test_no_deadline_outlives_its_reply() -> None:
    async with scripted_site([Say("a"), Pause(1)] * 6, "b") as site:
        limits = Timeouts(connect=1, first_chunk=2, idle=3, total=10)
        async with site.client(timeouts=limits) as client:
            async with client.stream("hello") as chunks:
                assert await chunks.read() == "aaaaaa"
                await anyio.sleep(100)  # the reply is complete, so no deadline runs
                with pytest.raises(anyio.EndOfStream):
                    await chunks.receive()
            assert await receive_by("ask", client) == "b"
