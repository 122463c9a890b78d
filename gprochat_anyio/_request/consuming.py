"""Opening a request and waiting for the end of its reply: `ask`, `stream_to` and fan-outs."""

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
    """Return the whole reply to a request. Whatever interrupts that, the reply is closed.

    :raises GPROChatError: If there is no complete reply.
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
    in_time_by_its_end: bool = False,
) -> Reply:
    """Pass on the text of the reply to a request, and return the reply, which is closed then.

    Ends early if the consumer has left.

    :param offer: passes text on, or returns False if there is no room for it now
    :param put: waits for room; nothing else is passed on meanwhile
    :param started: called once the first text has arrived
    :param in_time_by_its_end: True if `total` ends with the reply, however long its text waits for
        room after that; False if it ends with the last text sent
    :raises GPROChatError: If there is no complete reply, or `total` passes.
    """
    sink = Forwarder(offer)
    reply = await opener.open(request, sink)
    try:
        if started is not None:
            started()
        while not sink.left:
            if sink.has_held:
                ends = inf if in_time_by_its_end else reply.deadlines.ends
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

    The first returns False if there is no room; the second waits for room.

    :param tag: if given, the items are `(tag, text)`
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
