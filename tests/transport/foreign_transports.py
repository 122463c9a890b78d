"""Transports of httpx and httpx2 with scripted bodies, and their clients."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import anyio
from support.retries import ONCE

from gprochat_anyio import Client, Finished, fan_out, gather

TEXT = {"content-type": "text/plain; charset=utf-8"}


def client_by(transport: Any, **options: Any) -> Client:
    return Client("http://site.test", transport=transport, retry=ONCE, **options)


def streaming(library: Any, body: Callable[[], AsyncIterator[bytes]], **options: Any) -> Any:
    """Return a transport whose responses have this body."""

    class Body(library.AsyncByteStream):  # type: ignore[misc]
        closed = 0

        def __aiter__(self) -> AsyncIterator[bytes]:
            return body()

        async def aclose(self) -> None:
            Body.closed += 1

    class Transport(library.AsyncBaseTransport):  # type: ignore[misc]
        stream = Body
        closed = 0

        async def handle_async_request(self, request: Any) -> Any:
            return library.Response(200, headers=TEXT, stream=Body(), **options)

        async def aclose(self) -> None:
            self.closed += 1

    return Transport()


async def hello() -> AsyncGenerator[bytes]:
    for piece in (b"Hel", b"", b"lo", b" w\xc3", b"\xb6rld"):
        yield piece


async def text_by(client: Client, way: str) -> str:
    if way == "ask":
        return (await client.ask("Hi")).text
    if way == "stream":
        async with client.stream("Hi") as chunks:
            return await chunks.read()
    if way == "stream_to":
        send, receive = anyio.create_memory_object_stream[str](10)
        with receive:
            return (await client.stream_to("Hi", send)).text
    if way == "gather":
        return (await gather(client, ["Hi"], on_error="raise"))[0].unwrap().text
    async with fan_out(client, ["Hi"], on_error="raise") as events:
        *_, last = [event async for event in events]
    assert isinstance(last, Finished)
    return last.reply.text
