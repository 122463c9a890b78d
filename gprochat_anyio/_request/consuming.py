"""Open a request and wait for the end of its reply, for `ask`, `stream_to` and fan-outs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import Any

import anyio
from anyio.abc import ObjectSendStream
from anyio.streams.memory import MemoryObjectSendStream

from .opener import Opener, PreparedRequest
from .reply import Reply
from .sinks import Collector, Forwarder
from .tags import UNTAGGED, tagged


async def collect(opener: Opener, request: PreparedRequest) -> Reply:
    """Return the complete reply to a request. An exception or cancellation closes the reply.

    :raises GPROChatError: If the request or the reply fails.
    """
    sink = Collector()
    reply = await opener.open(request, sink, whole=True)
    try:
        while not reply.over:
            await reply.wait()
        reply.raise_error(sink.text)
    finally:
        reply.end()
        await reply.wait_closed()
    return reply.result(sink.text)


async def forward(
    opener: Opener,
    request: PreparedRequest,
    offer: Callable[[str], bool],
    put: Callable[[str], Awaitable[None]],
    *,
    started: Callable[[], None] | None = None,
    total_ends_with_reply: bool = False,
) -> Reply:
    """Forward the text of the reply to a request. Return the reply, which is closed by then.

    This ends early if the consumer has left.

    :param offer: Forward a text without waiting, or return False if there is no room.
    :param put: Wait for room, then forward a text. Other text is held meanwhile.
    :param started: Called once the first text has arrived.
    :param total_ends_with_reply: True if `total` applies until the end of the reply, False if it
        applies until the last text has been forwarded.
    :raises GPROChatError: If the request or the reply fails, or `total` passes.
    """
    sink = Forwarder(offer)
    reply = await opener.open(request, sink)
    try:
        if started is not None:
            started()
        while not sink.left:
            if sink.has_held:
                ends = inf if total_ends_with_reply else reply.deadlines.ends
                with anyio.CancelScope(deadline=ends) as scope:
                    reply.taken(await sink.pass_on(put))
                if scope.cancelled_caught:
                    reply.time_out()
                    break
            elif reply.over:
                break
            else:
                await reply.wait()
        if not sink.left:
            reply.raise_error(sink.text)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        sink.left = True
    finally:
        reply.end()
        await reply.wait_closed()
    return reply.result(sink.text)


def puts_into(
    send: ObjectSendStream[Any], tag: object
) -> tuple[Callable[[str], bool], Callable[[str], Awaitable[None]]]:
    """Return two functions that put text into a caller's channel.

    The first one returns False if there is no room. The second one waits for room.

    :param tag: If given, the items are `(tag, text)`.
    """
    put: Callable[[Any], Awaitable[None]] = send.send
    if not isinstance(send, MemoryObjectSendStream):
        return _refuse, put if tag is UNTAGGED else tagged(put, tag)
    put_nowait: Callable[[Any], None] = send.send_nowait
    if tag is not UNTAGGED:
        put, put_nowait = tagged(put, tag), tagged(put_nowait, tag)

    def offer(text: str) -> bool:
        try:
            put_nowait(text)
        except anyio.WouldBlock:
            return False
        return True

    return offer, put


def _refuse(_: str) -> bool:
    return False
