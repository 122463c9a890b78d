"""Replies over transports of httpx and httpx2: mocks, applications, networks."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from support.http_libraries import EACH_LIBRARY, httpx
from support.response_bytes import chunk
from support.retries import ONCE
from support.scripted import reply
from support.servers import CHUNKED, Peer, repeating, serving

from gprochat_anyio import (
    Client,
    EmptyReplyError,
    RateLimitError,
    ReplyInterruptedError,
    SiteError,
    UnexpectedResponseError,
)

from .foreign_transports import TEXT, client_by, hello, streaming


@EACH_LIBRARY
class TestReplies:
    async def test_of_a_mock(self, library: Any) -> None:
        requests: list[Any] = []

        def handler(request: Any) -> Any:
            requests.append(request)
            return library.Response(200, headers=TEXT, content=b"Hello")

        async with client_by(library.MockTransport(handler), headers={"X-Own": "1"}) as client:
            assert (await client.ask("Hi")).text == "Hello"
        (request,) = requests
        assert (request.method, str(request.url)) == ("POST", "http://site.test/api/generate")
        assert type(request) is library.Request
        assert request.headers["x-own"] == "1"
        assert request.headers["host"] == "site.test"
        assert request.headers["content-type"] == "text/plain;charset=UTF-8"
        assert int(request.headers["content-length"]) == len(request.content)
        assert request.headers["accept-encoding"] == "identity"

    async def test_of_an_application(self, library: Any) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            body, more = b"", True
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)
            assert b'"Hi"' in body
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            for part in (b"Hel", b"lo"):
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body"})

        async with client_by(library.ASGITransport(app)) as client:
            assert (await client.ask("Hi")).text == "Hello"

    async def test_in_pieces(self, library: Any) -> None:
        transport = streaming(library, hello)
        async with client_by(transport) as client:
            async with client.stream("Hi") as chunks:
                assert [piece async for piece in chunks] == ["Hel", "lo", " w", "\xf6rld"]
            assert transport.stream.closed == 1
        assert transport.closed == 1

    async def test_over_the_network(self, library: Any) -> None:
        with anyio.fail_after(10):
            async with serving(repeating(reply("Hello", " ", "world"))) as server:
                transport = library.AsyncHTTPTransport()
                async with Client(server.url, transport=transport, retry=ONCE) as client:
                    for _ in range(2):
                        got = await client.ask("Hi")
                        assert got.text == "Hello world"
                assert server.accepted == 1

    async def test_the_marker_as_a_last_piece(self, library: Any) -> None:
        async def body() -> AsyncGenerator[bytes]:
            yield b"Hello"
            yield b"Internal server error"

        async with client_by(streaming(library, body)) as client:
            with pytest.raises(ReplyInterruptedError, match="its model failed") as caught:
                await client.ask("Hi")
            assert caught.value.partial_text == "Hello"

    async def test_the_marker_as_a_piece_among_others(self, library: Any) -> None:
        async def body() -> AsyncGenerator[bytes]:
            yield b"Hello"
            yield b"Internal server error"
            yield b", it said"

        async with client_by(streaming(library, body)) as client:
            assert (await client.ask("Hi")).text == "HelloInternal server error, it said"

    async def test_an_empty_body(self, library: Any) -> None:
        async def body() -> AsyncGenerator[bytes]:
            for _ in range(3):
                yield b""

        async with client_by(streaming(library, body)) as client:
            with pytest.raises(EmptyReplyError):
                await client.ask("Hi")

    async def test_errors_of_the_site(self, library: Any) -> None:
        def handler(request: Any) -> Any:
            return library.Response(429, headers={"Retry-After": "7"}, content=b"slow down")

        async with client_by(library.MockTransport(handler)) as client:
            with pytest.raises(RateLimitError) as caught:
                await client.ask("Hi")
            assert caught.value.retry_after == 7

    @pytest.mark.parametrize(
        ("extensions", "headers", "framed"),
        [
            ({}, {}, True),
            ({"http_version": b"HTTP/2"}, {}, True),
            ({"http_version": b"HTTP/1.1"}, {}, False),
            ({"http_version": b"HTTP/1.0"}, {}, False),
            ({"http_version": b"HTTP/1.1"}, {"Content-Length": "13"}, True),
            ({"http_version": b"HTTP/1.1"}, {"Transfer-Encoding": "chunked"}, True),
        ],
    )
    async def test_without_framing(
        self, library: Any, extensions: Any, headers: dict[str, str], framed: bool
    ) -> None:
        class Transport(library.AsyncBaseTransport):  # type: ignore[misc]
            async def handle_async_request(self, request: Any) -> Any:
                response = streaming(library, hello, extensions=extensions)
                answer = await response.handle_async_request(request)
                answer.headers.update(headers)
                return answer

        async with client_by(Transport()) as client:
            if framed:
                assert (await client.ask("Hi")).text == "Hello w\xf6rld"
            else:
                with pytest.raises(UnexpectedResponseError):
                    await client.ask("Hi")


# httpcore abandons its own generators
@pytest.mark.filterwarnings("ignore:Async generator 'httpcore:ResourceWarning")
async def test_a_site_with_endless_errors() -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED.replace(b"200 OK", b"500 No"))
        while True:
            await peer.send(chunk(b"x" * 1000))

    with anyio.fail_after(10):
        async with serving(handle) as server:
            transport = httpx.AsyncHTTPTransport()
            async with Client(server.url, transport=transport, retry=ONCE) as client:
                with pytest.raises(SiteError):
                    await client.ask("Hi")
            await server.all_ended()
