"""EventChannel: the text of a consumer that is behind is joined, up to a size."""

from __future__ import annotations

from gprochat_anyio import Chunk
from gprochat_anyio._fanout import event_channel
from gprochat_anyio._fanout.event_channel import EventChannel


async def test_text_is_joined_behind_what_waits() -> None:
    replies = event_channel._BEHIND
    channel = EventChannel(room=replies + 2)
    channel.open()
    for index in range(replies):
        assert channel.offer_text(index, f"{index};")
    assert channel.offer_text(0, "more;")  # behind its own text, and before the others'
    rest = "x" * event_channel._LONGEST
    assert channel.offer_text(0, rest)  # too long for one event
    assert channel.offer_text(replies, "of another")
    assert not channel.offer_text(1, rest)  # there is no room
    channel.end()
    events = [_take(channel) for _ in range(replies + 2)]
    texts = [f"{index};" for index in range(1, replies)]
    assert events[0] == Chunk(0, "0;more;")
    assert events[1:replies] == [Chunk(index, text) for index, text in enumerate(texts, 1)]
    assert events[replies:] == [Chunk(0, rest), Chunk(replies, "of another")]
    assert _take(channel) is None
    channel.close()


def _take(channel: EventChannel) -> object:
    assert channel.is_ready()
    return channel.take()
