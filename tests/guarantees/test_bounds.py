"""Limits of the data that a site can make the client hold, or send to it unread."""

from __future__ import annotations

import tracemalloc
from typing import Any

import anyio
import pytest
from support.apis import OPENAI, Api, every_api, every_model_api
from support.blocked import all_tasks_blocked
from support.faults import WAYS, assert_ours, receive_by
from support.loops import virtual
from support.response_bytes import LAST_CHUNK, REPLY_HEAD, chunk
from support.retries import ONCE
from support.scripted import Endless

from gprochat_anyio import (
    Client,
    GPROChatError,
    ReplyInterruptedError,
    Timeouts,
    UnexpectedResponseError,
)
from gprochat_anyio._request.building import MAX_REPLY_SIZE
from gprochat_anyio._wire.error_responses import ERROR_BODY_LIMIT
from gprochat_anyio._wire.server_sent_events import MAX_EVENT_SIZE
from gprochat_anyio.testing import Drop, Raw, Say, live_site, scripted_site
from gprochat_anyio.transport._connection import READ_SIZE
from gprochat_anyio.transport._response_parser import HEAD_LIMIT

OK = b"HTTP/1.1 200 OK\r\n"
FIRST = REPLY_HEAD + chunk(b"one")

_ODD, _CUT = UnexpectedResponseError, ReplyInterruptedError
_500 = b"HTTP/1.1 500 Oh\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
_INTERIM = b"HTTP/1.1 103 E\r\nA: b\r\n\r\n"

ENDLESS: dict[str, tuple[bytes, bytes, type[GPROChatError], int]] = {
    # the beginning, the endless rest, the error, and the number of bytes read before it
    "fields": (OK, b"X: y\r\n" * 100, _ODD, HEAD_LIMIT),
    "a field": (OK + b"X: ", b"y" * 1000, _ODD, HEAD_LIMIT),
    "the reason": (OK[:-2], b"K" * 1000, _ODD, HEAD_LIMIT),
    "interim answers": (b"", _INTERIM * 50, _ODD, HEAD_LIMIT),
    "a chunk extension": (REPLY_HEAD + b"5;", b"a=b;" * 100, _CUT, HEAD_LIMIT),
    "a chunk size": (REPLY_HEAD, b"0" * 1000, _CUT, HEAD_LIMIT),
    "trailers": (FIRST + b"0\r\n", b"X: y\r\n" * 100, _CUT, HEAD_LIMIT),
    "an error": (_500 + b"\r\n", b"oh " * 500, _ODD, ERROR_BODY_LIMIT),
    "an error in chunks": (_500 + _CHUNKED, chunk(b"oh " * 500), _ODD, ERROR_BODY_LIMIT),
    "HTML": (OK + b"Content-Type: text/html\r\n\r\n", b"<p>" * 500, _ODD, 0),
    "a redirect": (b"HTTP/1.1 302 F\r\nLocation: /\r\n\r\n", b"x" * 900, _ODD, 0),
    "gzip": (REPLY_HEAD[:-2] + b"Content-Encoding: gzip\r\n\r\n", chunk(bytes(900)), _ODD, 0),
    "a body": (FIRST, chunk(b"x" * 1000), _CUT, 100_000),
    "a chunk": (FIRST + b"fffffffffff\r\n", b"x" * 1000, _CUT, 100_000),
    "a body of tiny chunks": (FIRST, chunk(b"x") * 200, _CUT, 6 * 100_000),
}


@virtual
@pytest.mark.parametrize("endless", ENDLESS)
@pytest.mark.parametrize("way", WAYS[:3])
async def test_endless_responses_are_cut_off(way: str, endless: str) -> None:
    start, data, kind, taken = ENDLESS[endless]
    rest = Endless(start, data)
    async with scripted_site(rest) as site:
        async with site.client(max_reply_size=100_000, retry=ONCE) as client:
            with pytest.raises(kind) as caught:
                await receive_by(way, client)
        assert type(caught.value) is kind
        assert not site.open_connections
    assert rest.taken <= taken + len(data)  # the limit, and the read that exceeds it


def endless_of(api: Api) -> dict[str, tuple[bytes, bytes, int]]:
    """Return endless bodies of a model API, like those in `ENDLESS` but without the error."""
    first = api.head + api.said("one")
    return {
        "an event": (first, chunk(b"x" * 10_000), MAX_EVENT_SIZE),
        "a line of data": (first + chunk(b"data: "), chunk(b"x" * 10_000), MAX_EVENT_SIZE),
        "lines of data": (first, chunk(b"data: xxxxxxxx\n" * 1000), MAX_EVENT_SIZE * 2),
        "an error in the stream": (first + chunk(b"error: "), chunk(b"x" * 10_000), MAX_EVENT_SIZE),
        "text": (first, api.said("x" * 1000), 26_000),
        "text in tiny events": (first, api.said("x") * 20, 20_000 * len(api.said("x"))),
    }


@virtual
@every_model_api
@pytest.mark.parametrize("endless", endless_of(OPENAI))
async def test_endless_events_are_cut_off(api: Api, endless: str) -> None:
    start, data, taken = endless_of(api)[endless]
    rest = Endless(start, data, bound=30_000_000)
    async with scripted_site(rest) as site:
        async with api.client(site.url, max_reply_size=20_000, retry=ONCE) as client:
            with pytest.raises(ReplyInterruptedError) as caught:
                await client.ask("hello")
        text = "one" + "x" * 19_997 if "text" in endless else "one"
        assert_ours(caught.value, ReplyInterruptedError, text)
        assert not site.open_connections
    assert rest.taken <= taken + len(data)


@virtual
@pytest.mark.parametrize("way", WAYS)
async def test_max_reply_size(way: str) -> None:
    texts = [Say("é😀" * 100)] * 9  # 600 bytes and 200 characters each
    async with scripted_site(texts) as site:
        bound: Any = {"max_reply_size": 5400} if way == "provider" else {}
        async with site.client(max_reply_size=5400) as client:
            assert await receive_by(way, client, **bound) == "é😀" * 900
        bound = {"max_reply_size": 5399} if way == "provider" else {}
        async with site.client(max_reply_size=5399) as client:
            pieces: list[str] = []
            with pytest.raises(ReplyInterruptedError, match="max_reply_size, 5399 bytes") as caught:
                await receive_by(way, client, into=pieces, **bound)
        text = ("é😀" * 900)[:-1]
        assert_ours(caught.value, ReplyInterruptedError, text)
        assert way == "ask" or "".join(pieces) == text
        assert len(site.requests) == 2


@pytest.mark.slow
@virtual
async def test_the_default_of_max_reply_size() -> None:
    text = Say("x" * (READ_SIZE - 8))
    bounds: list[tuple[dict[str, Any], int]] = [({}, MAX_REPLY_SIZE)]
    bounds.append(({"max_reply_size": None}, MAX_REPLY_SIZE + 1))
    for bound, size in bounds:
        count = size // (READ_SIZE - 8) + 1
        async with scripted_site([text] * count) as site:
            async with site.client(**bound) as client:
                if bound:
                    assert (await client.ask("hello")).timing.characters > MAX_REPLY_SIZE
                else:
                    with pytest.raises(ReplyInterruptedError) as caught:
                        await client.ask("hello")
                    assert len(caught.value.partial_text) == MAX_REPLY_SIZE


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "64"])
def test_an_invalid_max_reply_size(size: Any) -> None:
    with pytest.raises(ValueError, match="max_reply_size must be"):
        Client("https://host", max_reply_size=size)


@virtual
@every_api
@pytest.mark.parametrize("reads", [0, 1, 2, 9, 70])
async def test_a_consumer_that_stops_reading_stops_the_site(api: Api, reads: int) -> None:
    """The client buffers 64 KiB of text, and the rest of the last read."""
    rest = Endless(api.head + api.said("one"), api.said("x" * 1000), bound=9_000_000)
    async with scripted_site(rest) as site:
        async with api.client(site.url, timeouts=Timeouts(total=None)) as client:
            async with client.stream("hello") as chunks:
                for _ in range(reads):
                    await chunks.receive()
                await anyio.sleep(1000)
                taken = rest.taken
                await anyio.sleep(1000)
                assert rest.taken == taken
                waiting = 3 + taken // len(rest.data) * 1000 - len(chunks.text)
                assert 32 * 1024 <= waiting < 64 * 1024 + 1000
                for _ in range(20):
                    await chunks.receive()  # the reply continues: no deadline has expired
                assert rest.taken > taken


@virtual
async def test_a_channel_that_is_full_stops_the_site() -> None:
    rest = Endless(FIRST, chunk(b"x" * 1000))
    async with scripted_site(rest) as site:
        async with site.client(timeouts=Timeouts(total=None)) as client:
            send, receive = anyio.create_memory_object_stream[str](3)
            async with receive, anyio.create_task_group() as tasks:
                tasks.start_soon(client.stream_to, "hello", send)
                await anyio.sleep(1000)
                taken = rest.taken
                await anyio.sleep(1000)
                assert rest.taken == taken
                in_channel = 3 + 1000 + 1000
                waiting = 3 + taken // len(rest.data) * 1000 - in_channel
                assert 64 * 1024 <= waiting < 64 * 1024 + 1000
                for _ in range(9):
                    await receive.receive()
                receive.close()


@pytest.mark.slow
async def test_memory_is_flat_while_a_reply_is_refused() -> None:
    """The peak over sockets, for every endless response except the body."""
    for name, (start, data, kind, _) in ENDLESS.items():
        if "a body" in name or name == "a chunk":
            continue
        with anyio.fail_after(20):
            async with live_site(Endless(start, data * 50)) as site:
                async with site.client(retry=ONCE) as client:
                    await fails(client, kind)  # imports and caches of the first use
                    tracemalloc.start()
                    try:
                        await fails(client, kind)
                        _, peak = tracemalloc.get_traced_memory()
                    finally:
                        tracemalloc.stop()
        assert peak < 2_000_000, name


async def fails(client: Client, kind: type[GPROChatError]) -> None:
    with pytest.raises(kind):
        await client.ask("hello")


async def test_memory_is_flat_without_a_reader() -> None:
    data = chunk(b"x" * 60_000)
    with anyio.fail_after(20):
        async with live_site(Endless(FIRST, data, bound=50_000_000)) as site:
            async with site.client() as client, client.stream("hello") as chunks:
                for _ in range(5):
                    await chunks.receive()
                tracemalloc.start()
                try:
                    await all_tasks_blocked()  # until the kernel's buffers are full
                    _, peak = tracemalloc.get_traced_memory()
                finally:
                    tracemalloc.stop()
    assert peak < 2_000_000


async def test_a_response_that_ends_beyond_the_limit_is_cut_off_too() -> None:
    script = [Say("one"), Say("x" * 50), Raw(LAST_CHUNK), Drop()]
    async with live_site(script) as site:
        async with site.client(max_reply_size=20, retry=ONCE) as client:
            with pytest.raises(ReplyInterruptedError) as caught:
                await client.ask("hello")
            assert caught.value.partial_text == "one" + "x" * 17
