"""A reply that ends with the failure marker has failed, however proxies split it into chunks."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import anyio
import pytest
from support.http_libraries import EACH_LIBRARY
from support.response_bytes import LAST_CHUNK, REPLY_HEAD, chunk
from support.servers import Peer, Server, serving

from gprochat_anyio import Client, ReplyInterruptedError
from gprochat_anyio.testing import Hold, Raw, Request, Script, Step, scripted_site

MARKER = b"Internal server error"
TEXT = "Привет. In 1"
"""Except for its `1`, its end could be the beginning of the marker."""

FAILED = TEXT.encode() + MARKER

NOT_THE_MARKER = [
    MARKER + b".",
    MARKER + b" ",
    b"x" + MARKER + b"\n",
    MARKER.lower(),
    MARKER[:-1],
    MARKER[1:],
    MARKER * 2 + b"s",
    b"I" * 30,
    b"InInternal server erro",
]

Pieces = tuple[bytes, ...]


def cuts(body: bytes) -> Iterator[Pieces]:
    """Yield the body in one piece, in two pieces for any cut, in single bytes, and in threes."""
    yield (body,)
    for at in range(1, len(body)):
        yield body[:at], body[at:]
    yield tuple(body[at : at + 1] for at in range(len(body)))
    yield tuple(body[at : at + 3] for at in range(0, len(body), 3))


async def assert_failed(client: Client, *, ask: bool) -> None:
    """Receive a reply, and assert that it fails after its complete text."""
    pieces: list[str] = []
    with pytest.raises(ReplyInterruptedError, match="failure_marker=False") as caught:
        if ask:
            await client.ask("hi")
        async with client.stream("hi") as chunks:
            async for piece in chunks:
                pieces.append(piece)  # noqa: PERF401 - until the failure
    assert caught.value.partial_text == TEXT
    assert ask or "".join(pieces) == TEXT


def chunked(pieces: Pieces) -> bytes:
    return b"".join(map(chunk, pieces)) + LAST_CHUNK


async def test_over_the_librarys_own_connections() -> None:
    """Split into HTTP chunks within one read, into reads of one chunk each, and into both."""
    bodies = [[REPLY_HEAD + chunked(pieces)] for pieces in cuts(FAILED)]
    whole = REPLY_HEAD + chunked((FAILED,))
    bodies += [[whole[:at], whole[at:]] for at in range(len(REPLY_HEAD), len(whole))]
    bodies += [[REPLY_HEAD, *map(chunk, pieces), LAST_CHUNK] for pieces in cuts(FAILED)]
    scripts = iter([[Raw(data) for data in body] for body in bodies])

    def reply(_: Request) -> Script:
        return next(scripts)

    async with scripted_site(reply) as site, site.client() as client:
        for number in range(len(bodies)):
            await assert_failed(client, ask=number % 2 == 0)
    assert next(scripts, None) is None


@EACH_LIBRARY
async def test_over_a_mock_transport(library: ModuleType) -> None:
    bodies = iter([*cuts(FAILED)])

    def respond(_: Any) -> Any:
        pieces = next(bodies)

        async def stream() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        headers = {"content-type": "text/plain; charset=utf-8", "transfer-encoding": "chunked"}
        return library.Response(200, headers=headers, content=stream())

    transport = library.MockTransport(respond)
    async with Client("http://site.test", transport=transport) as client:
        for number in range(len([*cuts(FAILED)])):
            await assert_failed(client, ask=number % 2 == 0)


@asynccontextmanager
async def cutting(bodies: Iterator[Pieces]) -> AsyncIterator[Server]:
    """Serve a body on a socket, each piece in its own write."""

    async def handle(peer: Peer) -> None:
        while True:
            await peer.request()
            first, *rest = next(bodies)
            await peer.send(REPLY_HEAD + chunk(first))
            for piece in rest:
                await peer.send(chunk(piece))
            await peer.send(LAST_CHUNK)

    with anyio.fail_after(20):
        async with serving(handle) as server:
            yield server


@EACH_LIBRARY
async def test_over_a_real_transport_of_httpx(library: ModuleType) -> None:
    some = [*itertools.islice(cuts(FAILED), None, None, 3), *[*cuts(FAILED)][-2:]]
    async with cutting(iter(some)) as server:
        transport = library.AsyncHTTPTransport()
        async with Client(server.url, transport=transport) as client:
            for number in range(len(some)):
                await assert_failed(client, ask=number % 2 == 0)


async def test_over_a_socket() -> None:
    async with cutting(cuts(FAILED)) as server, Client(server.url, trust_env=False) as client:
        for number in range(len([*cuts(FAILED)])):
            await assert_failed(client, ask=number % 2 == 0)


@pytest.mark.parametrize("body", NOT_THE_MARKER, ids=repr)
async def test_similar_text(body: bytes) -> None:
    scripts = iter([[REPLY_HEAD, *map(chunk, pieces), LAST_CHUNK] for pieces in cuts(body)])
    async with scripted_site(lambda _: [Raw(data) for data in next(scripts)]) as site:
        async with site.client() as client:
            for _ in cuts(body):
                assert (await client.ask("hi")).text == body.decode()


async def test_similar_text_is_not_held_back_until_the_end() -> None:
    more = anyio.Event()
    first: list[Step | Hold] = [
        Raw(REPLY_HEAD + chunk(b"An Int")),
        Raw(chunk(b"eger is")),
        more.wait,
    ]
    async with scripted_site([*first, Raw(chunk(b" whole") + LAST_CHUNK)]) as site:
        with anyio.fail_after(5):
            async with site.client() as client, client.stream("hi") as chunks:
                while chunks.text != "An Integer is":
                    await chunks.receive()
                more.set()
                assert await chunks.read() == " whole"


async def test_the_marker_is_text_if_switched_off() -> None:
    scripts = iter([[REPLY_HEAD, *map(chunk, pieces), LAST_CHUNK] for pieces in cuts(FAILED)])
    async with scripted_site(lambda _: [Raw(data) for data in next(scripts)]) as site:
        async with site.client(failure_marker=False) as client:
            for _ in cuts(FAILED):
                assert (await client.ask("hi")).text == FAILED.decode()
