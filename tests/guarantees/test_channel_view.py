"""A ReplyStream as a memory object channel: `receive_nowait` and `statistics`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.blocked import all_tasks_blocked

from gprochat_anyio import ReplyInterruptedError, ReplyStream, RequestTimeoutError, Timeouts
from gprochat_anyio.testing import Drop, Hang, Say, Script, ScriptedSite, live_site, scripted_site


@asynccontextmanager
async def streaming(script: Script) -> AsyncIterator[tuple[ReplyStream, ScriptedSite]]:
    with anyio.fail_after(10):
        async with live_site(script) as site, site.client() as client:
            async with client.stream("hi") as chunks:
                yield chunks, site


async def arrived(chunks: ReplyStream, number: int) -> None:
    """Wait until a number of pieces have arrived, received or not."""
    while chunks.timing.chunks < number:
        await checkpoint()


async def ended(chunks: ReplyStream) -> None:
    """Wait until the end of the reply has arrived, which closes the sending end."""
    while chunks.statistics().open_send_streams:
        await checkpoint()


async def test_receive_nowait() -> None:
    more = anyio.Event()
    async with streaming([Say("one"), more.wait, Say("two")]) as (chunks, _):
        assert chunks.receive_nowait() == "one"
        for _ in range(2):
            with pytest.raises(anyio.WouldBlock):
                chunks.receive_nowait()
        assert chunks.text == "one"
        more.set()
        await arrived(chunks, 2)
        assert chunks.receive_nowait() == "two"
        await ended(chunks)
        for _ in range(2):
            with pytest.raises(anyio.EndOfStream):
                chunks.receive_nowait()
        assert chunks.text == "onetwo"


async def test_receive_nowait_and_receive_take_turns() -> None:
    gates = [anyio.Event() for _ in range(6)]
    script = [step for n, gate in enumerate(gates) for step in (Say(f"{n}"), gate.wait)]
    async with streaming(script) as (chunks, _):
        for number, gate in enumerate(gates):
            await arrived(chunks, number + 1)
            piece = await chunks.receive() if number % 2 else chunks.receive_nowait()
            assert piece == f"{number}"
            gate.set()
        assert await chunks.read() == ""


async def test_receive_nowait_raises_a_failure_after_all_text() -> None:
    more = anyio.Event()
    async with streaming([Say("one"), more.wait, Say("two"), Drop()]) as (chunks, _):
        more.set()
        await arrived(chunks, 2)
        await ended(chunks)
        assert "".join(chunks.receive_nowait() for _ in range(2)) == "onetwo"
        for _ in range(2):
            with pytest.raises(ReplyInterruptedError) as caught:
                chunks.receive_nowait()
            assert caught.value.partial_text == "onetwo"
            assert caught.value.__context__ is None


async def test_receive_nowait_raises_a_missed_deadline() -> None:
    async with scripted_site([Say("one"), Hang()]) as site, site.client() as client:
        async with client.stream("hi", timeouts=Timeouts(idle=0.02)) as chunks:
            await ended(chunks)
            assert chunks.receive_nowait() == "one"
            with pytest.raises(RequestTimeoutError) as caught:
                chunks.receive_nowait()
            assert (caught.value.phase, caught.value.partial_text) == ("idle", "one")


async def test_nothing_to_receive() -> None:
    async with live_site([Say("one"), Hang()]) as site, site.client() as client:
        chunks = client.stream("hi")
        with pytest.raises(RuntimeError, match="entered first"):
            chunks.receive_nowait()
        with pytest.raises(RuntimeError, match="entered first"):
            chunks.statistics()
        async with chunks:
            chunks.stop()
            with pytest.raises(anyio.EndOfStream):
                chunks.receive_nowait()
        with pytest.raises(anyio.ClosedResourceError):
            chunks.receive_nowait()
        assert chunks.text == ""


async def test_receive_nowait_beside_a_receiving_task() -> None:
    """One of them gets each piece. If it is not the task, the task continues to wait."""
    gates = [anyio.Event(), anyio.Event()]
    script: Script = [Say("a"), gates[0].wait, Say("b"), gates[1].wait, Say("c")]
    async with streaming(script) as (chunks, _):
        assert chunks.receive_nowait() == "a"
        got: list[str] = []

        async def receive() -> None:
            got.append(await chunks.receive())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await all_tasks_blocked()
            with pytest.raises(anyio.WouldBlock):
                chunks.receive_nowait()
            for gate in gates:
                gate.set()
                await arrived(chunks, 2 + gates.index(gate))
                if not got:
                    try:
                        got.append(chunks.receive_nowait())
                    except anyio.WouldBlock:
                        await all_tasks_blocked()
        assert "".join(got) + await chunks.read() == "bc"


async def test_statistics() -> None:
    gates = [anyio.Event() for _ in range(2)]
    script: Script = [Say("a"), gates[0].wait, Say("b"), Say("c"), gates[1].wait]
    async with streaming(script) as (chunks, _):
        seen = chunks.statistics()
        assert seen.max_buffer_size == inf
        assert (seen.open_send_streams, seen.open_receive_streams) == (1, 1)
        assert (seen.tasks_waiting_send, seen.tasks_waiting_receive) == (0, 0)
        assert seen.current_buffer_used == 1
        await chunks.receive()
        assert chunks.statistics().current_buffer_used == 0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(chunks.receive)
            await all_tasks_blocked()
            assert chunks.statistics().tasks_waiting_receive == 1
            assert chunks.statistics().current_buffer_used == 0
            gates[0].set()
        assert chunks.statistics().tasks_waiting_receive == 0
        gates[1].set()
        await ended(chunks)
        assert chunks.statistics().open_receive_streams == 1
        assert "a" + await chunks.read() in {"ac", "abc", "a"}
        assert chunks.text == "abc"
        await chunks.aclose()
        seen = chunks.statistics()
        assert (seen.open_send_streams, seen.open_receive_streams) == (0, 0)


async def test_a_cancelled_task_is_not_waiting() -> None:
    async with streaming([Say("a"), Hang()]) as (chunks, _):
        await chunks.receive()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(chunks.receive)
            await all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert chunks.statistics().tasks_waiting_receive == 0


async def test_the_channel_is_closed_at_either_end() -> None:
    async with streaming([Say("a"), Hang()]) as (chunks, site):
        chunks.stop()
        assert chunks.statistics().open_send_streams == 0
        await site.until(lambda: not site.open_connections)
