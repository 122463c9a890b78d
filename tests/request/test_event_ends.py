"""The last log event of a request: one for each, whatever ends it."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import anyio
import pytest
from support.blocked import all_tasks_blocked
from support.log_events import (
    BEGUN,
    BROKEN,
    NOTHING,
    OK,
    ask,
    be_cancelled,
    fail_in_the_block,
    failing_at,
    leave,
    names,
    told,
)
from support.loops import virtual
from support.prompted import closed, pool_of
from support.response_bytes import REPLY_HEAD

from gprochat_anyio import Client, GPROChat, GPROChatError, Retry, Timeouts
from gprochat_anyio.testing import Raw, Refuse, Reply, Say, live_site, scripted_site


async def leave_the_handling_of_another_error(client: Client) -> None:
    try:
        raise LookupError  # noqa: TRY301 - to be handled meanwhile
    except LookupError:
        await leave(client)


async def stop(client: Client) -> None:
    async with client.stream("Hi") as chunks, anyio.create_task_group() as tasks:
        await chunks.receive()
        tasks.start_soon(chunks.read)
        await all_tasks_blocked()
        chunks.stop()


async def be_cancelled_in_the_block(client: Client) -> None:
    with anyio.move_on_after(1):
        async with client.stream("Hi") as chunks:
            await chunks.receive()
            await anyio.sleep(9)


async def be_slow(client: Client) -> None:
    async with client.stream("Hi") as chunks:
        await chunks.receive()
        await anyio.sleep(99)
        await chunks.receive()


async def leave_before_the_error(client: Client) -> None:
    async with client.stream("Hi") as chunks:
        await chunks.receive()
        await anyio.sleep(1)


async def close_a_generator(client: Client) -> None:
    pieces = GPROChat.create_async_generator(
        "", [{"role": "user", "content": "Hi"}], url=client.url
    )
    async for _ in pieces:
        break
    await pieces.aclose()


MALFORMED = Raw(REPLY_HEAD + Say("some").data + Say(b"\xff").data)


@virtual
@pytest.mark.parametrize(
    ("script", "way", "expected"),
    [
        (BEGUN, leave, "left"),
        (BEGUN, leave_the_handling_of_another_error, "left"),
        (BEGUN, stop, "left"),
        (BEGUN, fail_in_the_block, "left LookupError"),
        (BEGUN, close_a_generator, "left"),
        (BEGUN, be_cancelled, "cancelled cancelled"),
        (NOTHING, be_cancelled, "cancelled cancelled"),
        (BEGUN, be_cancelled_in_the_block, "cancelled cancelled"),
        (NOTHING, ask, "failed RequestTimeoutError first_chunk"),
        (BEGUN, ask, "failed RequestTimeoutError idle"),
        (BEGUN, be_slow, "failed RequestTimeoutError idle"),
        (BROKEN, ask, "failed ReplyInterruptedError"),
        (BROKEN, leave_before_the_error, "failed ReplyInterruptedError"),
        (MALFORMED, leave_before_the_error, "failed ReplyInterruptedError"),
        (Refuse(401, "Invalid password."), ask, "failed AuthenticationError 401"),
        (OK, ask, "done"),
        (OK, leave, "done"),
        (OK, fail_in_the_block, "done"),
    ],
)
async def test_each_request_has_one_end(heard: Any, script: Reply, way: Any, expected: str) -> None:
    limits = Timeouts(first_chunk=5, idle=5, total=50)
    async with scripted_site(script) as site:
        async with site.client(timeouts=limits, retry=Retry(attempts=1)) as client:
            with suppress(GPROChatError, LookupError):
                await way(client)
    (end,) = [
        e for e in told(heard) if re.fullmatch("request.(done|failed|left|cancelled)", e["event"])
    ]
    assert names(heard)[-1] == end["event"]
    why = [end.get(name) for name in ("error", "status", "phase")]
    assert " ".join(str(word) for word in why if word) == expected.partition(" ")[2]
    assert end["event"] == f"request.{expected.partition(' ')[0]}"
    began = "reply.started" in names(heard)
    assert end["characters"] == (0 if not began else 2 if script is OK else 4)


@pytest.mark.parametrize(
    "event",
    [
        *("request.started", "connection.made", "connection.reused", "reply.started"),
        *("request.left", "request.done", "request.failed"),
    ],
)
async def test_a_failing_log_leaves_no_connection_open(heard: Any, event: str) -> None:
    with failing_at(event):
        async with live_site(OK, BEGUN) as site:
            async with site.client(timeouts=Timeouts(idle=0.1)) as client:
                with pytest.raises(LookupError, match="broken"):
                    await ask(client)
                    await leave(client)
                    await ask(client)
                assert pool_of(client).statistics().available == 1000
            await closed(site)
