"""A model API's reply is complete with its finish reason, however the connection ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from support.apis import GPROCHAT, OPENAI, USAGE, Api, every_api, every_model_api
from support.decoding import event, said
from support.faults import WAYS, receive_by
from support.loops import virtual
from support.prompted import pool_of
from support.response_bytes import LAST_CHUNK, chunk
from support.retries import ONCE

from gprochat_anyio import Client, ReplyStream, Timeouts, gather
from gprochat_anyio.testing import (
    Drop,
    Hang,
    Pause,
    Raw,
    Say,
    Script,
    Stop,
    live_site,
    scripted_site,
)
from gprochat_anyio.transport._reactor import current_reactor

NO_LIMITS = Timeouts(connect=None, first_chunk=None, idle=None, total=None)


def without_its_end(api: Api, *texts: str) -> bytes:
    """Return a response with all events of a reply, but without the end of its body."""
    return api.reply(*texts).removesuffix(LAST_CHUNK)


async def seconds_of(operation: Callable[[], Awaitable[object]]) -> float:
    began = anyio.current_time()
    await operation()
    return anyio.current_time() - began


@virtual
@every_model_api
@pytest.mark.parametrize("way", WAYS[:3])
@pytest.mark.parametrize("limits", [Timeouts(), NO_LIMITS, Timeouts(idle=0.2)], ids=str)
async def test_an_unfinished_body_is_awaited_for_one_second(
    api: Api, way: str, limits: Timeouts
) -> None:
    script = [Raw(without_its_end(api, "one", "two")), Hang()]
    async with scripted_site(script) as site, api.client(site.url, timeouts=limits) as client:
        began = anyio.current_time()
        assert await receive_by(way, client) == "onetwo"
        assert anyio.current_time() - began == pytest.approx(1)
        assert not site.open_connections
        assert len(site.requests) == 1


@virtual
@every_model_api
async def test_comments_after_the_end_do_not_extend_the_wait(api: Api) -> None:
    comments = [Raw(chunk(b": keep-alive\n\n")), Pause(0.3)]
    script = [Raw(without_its_end(api, "one")), *comments * 99]
    async with scripted_site(script) as site, api.client(site.url) as client:
        assert await seconds_of(lambda: client.ask("hi")) == pytest.approx(1)
        assert not site.open_connections


@virtual
async def test_usage_that_arrives_slightly_later() -> None:
    whole = without_its_end(OPENAI, "one")
    place = whole.index(b'data: {"choices": [], "usage"')
    script = [Raw(whole[:place]), Pause(0.9), Raw(whole[place:] + LAST_CHUNK)]
    async with scripted_site(script) as site, OPENAI.client(site.url) as client:
        reply = await client.ask("hi")
        assert (reply.finish_reason, reply.usage) == ("stop", USAGE)
        assert pool_of(client).statistics().idle


@virtual
@every_model_api
async def test_total_ends_the_wait_for_the_end(api: Api) -> None:
    script = [Raw(without_its_end(api, "one")), Hang()]
    async with scripted_site(script) as site, api.client(site.url) as client:
        limits = Timeouts(total=0.4)
        seconds = await seconds_of(lambda: client.ask("hi", timeouts=limits))
        assert seconds == pytest.approx(0.4)


AFTER: dict[str, Script] = {
    "FIN": Drop(),
    "RST": Drop(reset=True),
    "FIN in a chunk": [Raw(b"9\r\nda"), Drop()],
    "RST in a chunk": [Raw(b"9\r\nda"), Drop(reset=True)],
    "not a chunk": Raw(b"zz\r\n"),
    "not JSON": [Raw(chunk(b"data: {]\n\n") + LAST_CHUNK)],
    "not a trailer": Raw(b"0\r\nno field\r\n\r\n"),
}


@virtual
@every_model_api
@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize("way", WAYS[:3])
async def test_data_after_the_end_changes_nothing(api: Api, way: str, after: str) -> None:
    rest: Any = AFTER[after]
    whole = without_its_end(api, "one", "two")
    for start in ([Raw(whole)], [Raw(whole), Pause(0.5)]):
        script = [*start, *(rest if isinstance(rest, list) else [rest])]
        async with scripted_site(script) as site:
            async with api.client(site.url, retry=ONCE) as client:
                assert await receive_by(way, client) == "onetwo"


async def leave(chunks: ReplyStream) -> None:
    """Do nothing: the caller leaves the block."""


async def stop(chunks: ReplyStream) -> None:
    chunks.stop()


async def close(chunks: ReplyStream) -> None:
    await chunks.aclose()


async def be_cancelled(chunks: ReplyStream) -> None:
    with anyio.move_on_after(0.1):
        await chunks.receive()


@virtual
@every_model_api
@pytest.mark.parametrize("ending", [leave, stop, close, be_cancelled])
async def test_the_caller_need_not_wait_for_the_end(
    api: Api, ending: Callable[[ReplyStream], Awaitable[None]]
) -> None:
    script = [Raw(without_its_end(api, "one")), Hang()]
    async with scripted_site(script) as site, api.client(site.url, max_connections=1) as client:
        began = anyio.current_time()
        async with client.stream("hi") as chunks:
            assert await chunks.receive() == "one"
            await ending(chunks)
        assert anyio.current_time() - began <= 0.1
        assert not site.open_connections
        assert chunks.text == "one"
        assert (await client.ask("hi")).text == "one"  # the slot is free


@virtual
@every_model_api
async def test_a_slow_consumer_gets_all_text(api: Api) -> None:
    """Even if so much text waits that the connection is paused."""
    texts = ["x" * 30_000] * 5
    pieces = [Raw(api.head), *[Raw(api.said(text)) for text in texts]]
    script = [*pieces, Raw(api.end.removesuffix(LAST_CHUNK)), Hang()]
    limits = Timeouts(idle=5, total=None)
    async with scripted_site(script) as site:
        async with api.client(site.url, timeouts=limits) as client:
            async with client.stream("hi") as chunks:
                await anyio.sleep(1000)
                assert await chunks.read() == "".join(texts)
                assert chunks.finish_reason == "stop"
                assert not site.open_connections


@virtual
@every_model_api
async def test_text_in_the_last_event_is_not_lost(api: Api) -> None:
    """Neither is a reply of one event that arrives together with the end of the connection."""
    last = said("all", "stop")
    if api is not OPENAI:
        parts = [{"text": "all"}]
        last = {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}
    for end in (Drop(), Drop(reset=True), Hang()):
        script = [Raw(api.head + chunk(event(last))), end]
        async with scripted_site(script) as site, api.client(site.url, retry=ONCE) as client:
            assert (await client.ask("hi")).text == "all"


@every_api
async def test_a_connection_is_reused_after_a_body_that_ends(api: Api) -> None:
    script = [Say("one"), Stop(usage=USAGE)]
    with anyio.fail_after(20):
        async with live_site(script) as site, api.client(site.url) as client:
            for _ in range(3):
                assert (await client.ask("hi")).text == "one"
            assert site.connections == 1
            outcomes = await gather(client, ["hi"] * 20, max_at_once=5)
            assert [outcome.unwrap().text for outcome in outcomes] == ["one"] * 20
            assert site.connections <= 5
            for outcome in outcomes:
                reply = outcome.unwrap()
                facts = (reply.finish_reason, reply.usage)
                assert facts == ((None, None) if api is GPROCHAT else ("stop", USAGE))


@every_model_api
async def test_an_unfinished_body_on_a_socket(api: Api) -> None:
    async def ask(client: Client) -> None:
        assert (await client.ask("hi")).text == "onetwo"

    script = [Raw(without_its_end(api, "one", "two")), Hang()]
    with anyio.fail_after(20):
        async with live_site(script) as site, api.client(site.url) as client:
            async with anyio.create_task_group() as tasks:  # all wait at the same time
                for _ in range(5):
                    tasks.start_soon(ask, client)
            assert site.connections == len(site.requests) == 5
            await site.until(lambda: not site.open_connections)


@virtual
@every_model_api
async def test_a_consumer_that_has_left_does_not_wait_for_the_end(api: Api) -> None:
    """Even if one read held both the text, whose delivery fails, and the finish reason."""
    script = [Raw(without_its_end(api, "one")), Hang()]
    async with scripted_site(script) as site, api.client(site.url) as client:
        send, receive = anyio.create_memory_object_stream[str](1)
        receive.close()
        reactor = current_reactor()
        reactor.join()  # it would stop with the connection
        assert (await client.stream_to("hi", send)).text == "one"
        assert not reactor._live
        assert not site.open_connections
        reactor.leave()
