"""Turns that end by a deadline or a cancellation, at any suspension."""

from __future__ import annotations

import gc
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import anyio
import pytest
from support.conversations import answer, said
from support.loops import virtual
from support.prompted import closed, prompted
from support.servers import open_sockets

from gprochat_anyio import Client, Conversation, Message, RequestTimeoutError, Retry, Timeouts
from gprochat_anyio.testing import Injection, cancelled, injections, scripted_site

TURNS = (Message("user", "q"), Message("model", "a"))


@virtual
async def test_timeouts_and_cancellation() -> None:
    async with scripted_site(answer) as site, site.client() as client:
        conversation = Conversation(client)
        limits = Timeouts(idle=2)
        began = anyio.current_time()
        with pytest.raises(RequestTimeoutError) as caught:
            await conversation.ask("endless", timeouts=limits)
        assert (caught.value.phase, caught.value.partial_text) == ("idle", "one ")
        with pytest.raises(RequestTimeoutError):
            async with conversation.retry(timeouts=limits) as chunks:
                await chunks.read()
        assert anyio.current_time() - began == 4
        with anyio.move_on_after(1) as scope:
            await conversation.ask("endless")
        assert scope.cancelled_caught
        async with conversation.stream("endless") as chunks:
            with anyio.move_on_after(1):
                await chunks.read()
        assert said(conversation) == ["user: endless", "model: one "], "left as it was stopped"


async def whole(conversation: Conversation) -> None:
    await conversation.ask("slow")


async def again(conversation: Conversation) -> None:
    async with conversation.retry() as chunks:
        async for _ in chunks:
            pass


async def left(conversation: Conversation) -> None:
    async with conversation.stream("slow") as chunks:
        await chunks.receive()


@pytest.mark.parametrize("operation", [whole, again, left])
async def test_cancelled_at_every_suspension(
    operation: Callable[[Conversation], Coroutine[Any, Any, None]],
) -> None:
    gc.collect()
    by_operation: dict[Any, list[str]] = {
        whole: ["q", "a", "slow", "one two"],
        again: ["q", "Q"],
        left: ["q", "a", "slow", "one "],
    }
    recorded = by_operation[operation]
    async with prompted(answer, retry=Retry(attempts=1)) as (_, site):
        port = int(site.url.rpartition(":")[2])
        history = [{"role": m.role, "parts": [{"text": m.content}]} for m in TURNS]
        seen = set()
        for moment, native in injections():
            end, at = "", 0
            while end != "not reached":
                at += 1
                client = Client(site.url, retry=Retry(attempts=1))
                conversation = Conversation.from_json(client, history)
                end = await cancelled(
                    Injection(at, moment, native), partial(operation, conversation)
                )
                texts = [m.content for m in conversation.messages]
                assert texts in (["q", "a"], recorded), (at, moment, native)
                assert end == "cancelled" or texts == recorded
                seen.add(tuple(texts))
                assert (await conversation.ask("next")).text == "NEXT"
                await client.aclose()
                assert open_sockets(port) == 0
                await closed(site)
        assert len(seen) == 2, "cancelled both before and after it was recorded"
