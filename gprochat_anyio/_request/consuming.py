"""Waiting for the end of a reply, on behalf of a caller: `ask`, `stream_to` and fan-outs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import Any

import anyio
from anyio.abc import ObjectSendStream
from anyio.streams.memory import MemoryObjectSendStream

from .incoming import IncomingReply
from .sinks import Collector, Forwarder
from .tags import UNTAGGED, tagged


async def collect(reply: IncomingReply, sink: Collector) -> None:
    """Wait for the end of a reply. Whatever interrupts that, the reply is closed.

    :raises GPROChatError: If it is not complete.
    """
    try:
        while not reply.over:
            await reply.wait()
        reply.raise_error(sink.text)
    finally:
        reply.end()
        await reply.wait_closed()


async def forward(
    reply: IncomingReply,
    sink: Forwarder,
    send: Callable[[str], Awaitable[None]],
    *,
    started: Callable[[], None] | None = None,
    in_time_by_its_end: bool = False,
) -> None:
    """Send on what the sink had no room for, until the end of the reply, which is closed then.

    Ends early if the consumer has left.

    :param send: waits for room; nothing else is sent meanwhile
    :param started: called first
    :param in_time_by_its_end: True if `total` ends with the reply, however long its text waits for
        room after that; False if it ends with the last text sent
    :raises GPROChatError: If the reply is not complete, or `total` passes.
    """
    try:
        if started is not None:
            started()
        while not sink.left:
            if sink.has_held:
                ends = inf if in_time_by_its_end else reply.deadlines.ends
                with anyio.CancelScope(deadline=ends) as scope:
                    reply.taken(await sink.pass_on(send))
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
