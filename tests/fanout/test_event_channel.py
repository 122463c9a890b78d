"""EventChannel: the text of a slow consumer is joined, up to a size."""

from __future__ import annotations

import anyio

from gprochat_anyio import Chunk
from gprochat_anyio._fanout import event_channel
from gprochat_anyio._fanout.event_channel import EventChannel


async def test_text_is_joined_with_waiting_text() -> None:
    replies = event_channel._BEHIND
    channel = EventChannel(room=replies + 2)
    channel.open()
    for index in range(replies):
        assert channel.offer_text(index, f"{index};")
    assert channel.offer_text(0, "more;")  # joined with its own text, ahead of the others'
    rest = "x" * event_channel._LONGEST
    assert channel.offer_text(0, rest)  # too long to join
    assert channel.offer_text(replies, "of another")
    assert not channel.offer_text(1, rest)  # the channel is full
    channel.end()
    events = [_take(channel) for _ in range(replies + 2)]
    texts = [f"{index};" for index in range(1, replies)]
    assert events[0] == Chunk(0, "0;more;")
    assert events[1:replies] == [Chunk(index, text) for index, text in enumerate(texts, 1)]
    assert events[replies:] == [Chunk(0, rest), Chunk(replies, "of another")]
    assert _take(channel) is None
    channel.close()


async def test_text_is_joined_with_the_latest_piece_of_its_reply() -> None:
    replies = event_channel._BEHIND
    channel = EventChannel(room=replies + 2)
    channel.open()
    long = "x" * event_channel._LONGEST
    for index in range(replies):
        assert channel.offer_text(index, long)
    assert channel.offer_text(0, "a")
    assert _take(channel) == Chunk(0, long)
    assert channel.offer_text(0, "b")
    channel.end()
    events = [_take(channel) for _ in range(replies)]
    assert events[-1] == Chunk(0, "ab")
    assert _take(channel) is None
    channel.close()


async def test_a_cancelled_consumer_does_not_wait() -> None:
    """On asyncio, a task that is woken in the turn of its cancellation would notice nothing."""
    channel = EventChannel(room=2)
    channel.open()
    scope = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(channel.put, Chunk(0, "late"))
        with scope:
            scope.cancel()
            await channel.wait()
    assert scope.cancelled_caught
    assert _take(channel) == Chunk(0, "late")
    channel.close()


def _take(channel: EventChannel) -> object:
    assert channel.is_ready()
    return channel.take()
