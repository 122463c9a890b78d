"""The text that a ReplyStream buffers: its size, and receiving it without a wait."""

from __future__ import annotations

import anyio
import pytest
from support.blocked import all_tasks_blocked
from support.loops import virtual
from support.response_bytes import LAST_CHUNK, REPLY_HEAD, chunk

from gprochat_anyio import ReplyInterruptedError, ReplyStream, Timeouts
from gprochat_anyio.testing import Pause, Raw, Say, at_every_checkpoint, scripted_site

LONG = Timeouts(idle=None, total=None)


@virtual
@pytest.mark.parametrize("letter", ["a", "é", "😀"])
async def test_at_most_64_kib_are_read_ahead(letter: str) -> None:
    """The read that reaches this limit is the last one, until less than 32 KiB wait."""
    size = len(letter.encode())
    texts = [f"{n:03}" + letter * ((1000 - 3) // size) for n in range(200)]
    one = len(texts[0].encode())
    high, low = -(-65536 // one), 32768 // one
    script = [step for text in texts for step in (Say(text), Pause(0.1))]
    async with scripted_site(script) as site:
        async with site.client(timeouts=LONG) as client, client.stream("hi") as chunks:
            await anyio.sleep(60)
            assert chunks.timing.chunks == high
            text, arrived = "", high
            for _ in range(4):
                while (waiting := arrived - len(text.encode()) // one) > low:
                    assert chunks.timing.chunks == arrived
                    await anyio.sleep(60)
                    text += await chunks.receive()
                await anyio.sleep(60)
                arrived = min(arrived + high - waiting, len(texts))
                assert chunks.timing.chunks == arrived
            assert text + await chunks.read() == "".join(texts)


@virtual
async def test_a_slow_consumer_gets_the_rest_in_one_piece() -> None:
    texts = [f"{n:03}" for n in range(100)]
    async with scripted_site([step for text in texts for step in (Say(text), Pause(0.1))]) as site:
        async with site.client() as client, client.stream("hi") as chunks:
            await anyio.sleep(60)
            assert chunks.statistics().current_buffer_used == 17
            pieces = [piece async for piece in chunks]
    assert pieces == [*texts[:16], "".join(texts[16:])]
    assert chunks.timing.chunks == 100  # as they arrived


@virtual
async def test_receive_nowait_and_statistics() -> None:
    async with scripted_site([Say("one"), Say("two"), Pause(1), Say("three")]) as site:
        async with site.client() as client, client.stream("hi") as chunks:
            await anyio.sleep(0.5)
            statistics = chunks.statistics()
            assert (statistics.current_buffer_used, statistics.open_send_streams) == (2, 1)
            assert statistics.open_receive_streams == 1
            assert [chunks.receive_nowait(), chunks.receive_nowait()] == ["one", "two"]
            with pytest.raises(anyio.WouldBlock):
                chunks.receive_nowait()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(chunks.receive)
                await all_tasks_blocked()
                assert chunks.statistics().tasks_waiting_receive == 1
            assert chunks.statistics().tasks_waiting_receive == 0
            assert chunks.text == "onetwothree"
            with pytest.raises(anyio.EndOfStream):
                chunks.receive_nowait()
            assert chunks.statistics().open_send_streams == 0
            chunks.stop()
            with pytest.raises(anyio.EndOfStream):
                chunks.receive_nowait()
        assert chunks.statistics().open_receive_streams == 0
        with pytest.raises(anyio.ClosedResourceError):
            chunks.receive_nowait()


@pytest.mark.parametrize(
    ("last", "error"),
    [
        (chunk(b"two") + LAST_CHUNK, anyio.EndOfStream),
        (chunk(b"two") + b"x\r\n", ReplyInterruptedError),
        (chunk(b"two\xff"), ReplyInterruptedError),
    ],
)
async def test_the_last_text_is_not_lost_to_a_cancelled_read(
    last: bytes, error: type[Exception]
) -> None:
    """The text has arrived, and the connection is being closed, when the task is cancelled."""
    head = REPLY_HEAD.replace(b"Connection: keep-alive", b"Connection: close")
    async with scripted_site([Raw(head + chunk(b"one")), Raw(last)]) as site:
        for cancel in at_every_checkpoint():
            async with site.client() as client, client.stream("Hi") as chunks:
                got = [await chunks.receive()]

                async def read(chunks: ReplyStream = chunks, got: list[str] = got) -> None:
                    got.append(await chunks.receive())

                await cancel(read)
                with pytest.raises(error):
                    while True:
                        await read()
            assert got == ["one", "two"], cancel
