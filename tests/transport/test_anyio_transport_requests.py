"""Requests of an `AsyncClient` of httpx or httpx2 over `AnyIOTransport`."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import anyio
import pytest
from support.http_libraries import EACH_LIBRARY, httpx
from support.servers import CHUNKED, LAST_CHUNK, OK, Peer, Request, open_sockets, repeating, serving

from gprochat_anyio.transport import AnyIOTransport
from gprochat_anyio.transport._anyio_transport import _Body

from .http_clients import client_of
from .marks import TLS


class TestRequests:
    @TLS
    @EACH_LIBRARY
    async def test_get(self, library: Any, *, tls: bool) -> None:
        requests: list[Request] = []
        async with client_of(repeating(seen=requests), library=library, tls=tls) as (
            client,
            server,
        ):
            got = await client.get("/path%20x?a=b&c=%C3%A9", headers=[(b"X-Own", b"\xe9")])
            assert type(got) is library.Response
            assert (got.status_code, got.text, got.http_version) == (200, "ok", "HTTP/1.1")
            assert got.reason_phrase == "OK"
            assert got.headers.raw == [(b"Content-Length", b"2")]
            assert str(got.request.url).startswith(server.url)
            assert got.elapsed.total_seconds() >= 0
        (request,) = requests
        assert (request.method, request.place) == ("GET", "/path%20x?a=b&c=%C3%A9")
        assert request.headers["host"] == f"127.0.0.1:{server.port}"
        assert request.headers["x-own"] == "\xe9"
        assert "content-length" not in request.headers

    @EACH_LIBRARY
    async def test_post(self, library: Any) -> None:
        requests: list[Request] = []
        async with client_of(repeating(seen=requests), library=library) as (client, _):
            await client.post("/", content=b"hello")
            await client.post("/", json={"a": "b"})
            await client.post("/", data={"a": "b"})
            await client.post("/", files={"file": b"hello"})
            await client.post("/")
        bodies = [request.body for request in requests]
        assert [bodies[0], bodies[2], bodies[4]] == [b"hello", b"a=b", b""]
        assert b'"a"' in bodies[1]
        assert b"\r\n\r\nhello\r\n--" in bodies[3]

    async def test_head(self) -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"
        async with client_of(repeating(answer)) as (client, server):
            for _ in range(2):
                got = await client.head("/")
                assert (got.content, got.headers["content-length"]) == (b"", "500")
            assert server.accepted == 1

    @EACH_LIBRARY
    @pytest.mark.parametrize("size", [0, 10, 1_000_000])
    async def test_an_iterators_body_is_sent_in_chunks(self, library: Any, size: int) -> None:
        async def parts() -> AsyncGenerator[bytes]:
            yield b""
            for start in range(0, size, 70_000):
                yield b"x" * min(70_000, size - start)
                yield b""

        requests: list[Request] = []
        async with client_of(repeating(seen=requests), library=library) as (client, server):
            for _ in range(2):
                await client.post("/", content=parts())
            assert server.accepted == 1
        assert requests[0].headers["transfer-encoding"] == "chunked"
        assert [request.body for request in requests] == [b"x" * size] * 2

    async def test_an_iterators_body_of_a_given_length(self) -> None:
        async def parts() -> AsyncGenerator[bytes]:
            yield b"hel"
            yield b"lo"

        requests: list[Request] = []
        async with client_of(repeating(seen=requests)) as (client, _):
            await client.post("/", content=parts(), headers={"Content-Length": "5"})
        assert "transfer-encoding" not in requests[0].headers
        assert requests[0].body == b"hello"

    async def test_a_body_that_is_not_a_generator(self) -> None:
        class Parts(httpx.AsyncByteStream):
            def __aiter__(self) -> AsyncIterator[bytes]:
                self.left = 2
                return self

            async def __anext__(self) -> bytes:
                if not self.left:
                    raise StopAsyncIteration
                self.left -= 1
                return b"ok"

        requests: list[Request] = []
        headers = {"Transfer-Encoding": "chunked"}
        async with client_of(repeating(seen=requests)) as (client, server):
            request = httpx.Request("POST", server.url, headers=headers, stream=Parts())
            await client.send(request)
        assert requests[0].body == b"okok"

    async def test_an_exception_of_the_bodys_iterator(self) -> None:
        async def parts() -> AsyncGenerator[bytes]:
            yield b"x"
            raise KeyError("own")

        async with client_of(repeating()) as (client, server):
            with pytest.raises(KeyError, match="own"):
                await client.post("/", content=parts())
            assert open_sockets(server.port) == 0

    @pytest.mark.slow
    @TLS
    async def test_a_large_upload_and_a_large_download(self, *, tls: bool) -> None:
        chance = random.Random(5)
        data = chance.randbytes(3_000_000)

        async def echo(peer: Peer) -> None:
            while True:
                body = (await peer.request()).body
                await peer.send(CHUNKED)
                for start in range(0, len(body), 100_000):
                    part = body[start : start + 100_000]
                    await peer.send(b"%x\r\n%b\r\n" % (len(part), part))
                await peer.send(LAST_CHUNK)

        async with client_of(echo, tls=tls) as (client, server):
            for _ in range(2):
                got = await client.post("/", content=data)
                assert got.content == data
            assert server.accepted == 1

    @pytest.mark.parametrize(
        ("method", "headers"),
        [
            ("GET", [(b"X-Own", b"a\r\nEvil: b")]),
            ("GET", [(b"X-Own", b"a\nEvil: b")]),
            ("GET", [(b"X-Own", b"a\0b")]),
            ("GET", [(b"X\r\nEvil", b"b")]),
            ("GET / HTTP/1.1\r\nX: y\r\n\r\nGET", []),
        ],
    )
    @EACH_LIBRARY
    async def test_no_header_can_be_smuggled_in(
        self, library: Any, method: str, headers: list[tuple[bytes, bytes]]
    ) -> None:
        async with client_of(repeating(), library=library) as (client, server):
            with pytest.raises(library.LocalProtocolError, match="CR, LF or NUL") as caught:
                await client.request(method, "/", headers=headers)
            assert caught.value.request.url == server.url + "/"
            assert server.accepted == 0

    @EACH_LIBRARY
    async def test_other_protocols(self, library: Any) -> None:
        async with library.AsyncClient(transport=AnyIOTransport()) as client:
            with pytest.raises(library.UnsupportedProtocol, match="ftp:// is not HTTP"):
                await client.get("ftp://site.test/")

    @pytest.mark.parametrize("max_connections", [0, -1])
    async def test_invalid_max_connections(self, max_connections: int) -> None:
        with pytest.raises(ValueError, match="max_connections must be at least 1"):
            AnyIOTransport(max_connections=max_connections)

    async def test_unix_sockets(self, tmp_path: Any) -> None:
        async with serving(repeating(), path=tmp_path / "s") as server:
            transport = AnyIOTransport(uds=str(tmp_path / "s"))
            async with httpx.AsyncClient(transport=transport) as client:
                assert (await client.get("http://site.test/")).text == "ok"
            await server.until(lambda: server.ended == 1)

    async def test_ipv6(self) -> None:
        requests: list[Request] = []
        try:
            async with serving(repeating(seen=requests), host="::1") as server:
                async with httpx.AsyncClient(transport=AnyIOTransport()) as client:
                    assert (await client.get(f"http://[::1]:{server.port}/")).text == "ok"
        except OSError:
            pytest.skip("requires IPv6")
        assert requests[0].headers["host"] == f"[::1]:{server.port}"

    @EACH_LIBRARY
    @pytest.mark.parametrize("user", ["", "me:secret@"], ids=["open", "credentials"])
    async def test_a_proxy_forwards_plain_http(self, library: Any, user: str) -> None:
        requests: list[Request] = []
        async with serving(repeating(seen=requests)) as server:
            transport = AnyIOTransport(proxy=f"http://{user}127.0.0.1:{server.port}")
            async with library.AsyncClient(transport=transport) as client:
                assert (await client.get("http://site.test/path?a=b")).text == "ok"
        (request,) = requests
        assert request.place == "http://site.test/path?a=b"
        assert request.headers["host"] == "site.test"
        credentials = request.headers.get("proxy-authorization")
        assert credentials == ("Basic bWU6c2VjcmV0" if user else None)

    async def test_redirects_are_left_to_httpx(self) -> None:
        async def handle(peer: Peer) -> None:
            while True:
                request = await peer.request()
                if request.place == "/from":
                    await peer.send(
                        b"HTTP/1.1 302 Found\r\nLocation: /to\r\nContent-Length: 0\r\n\r\n"
                    )
                else:
                    await peer.send(OK)

        async with client_of(handle) as (client, server):
            assert (await client.get("/from")).status_code == 302
            got = await client.get("/from", follow_redirects=True)
            assert (got.status_code, got.url.path) == (200, "/to")
            assert server.accepted == 1

    async def test_compressed_bodies_are_left_to_httpx(self) -> None:
        import gzip  # noqa: PLC0415

        body = gzip.compress(b"hello")
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip \r\nContent-Length: %d\r\n\r\n"
        async with client_of(repeating(head % len(body) + body)) as (client, _):
            assert (await client.get("/")).text == "hello"

    async def test_the_order_of_cookies(self) -> None:
        answer = b"HTTP/1.1 204 N\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n"
        async with client_of(repeating(answer)) as (client, _):
            await client.get("/")
            assert dict(client.cookies) == {"a": "1", "b": "2"}


async def test_a_foreign_stream_is_rejected() -> None:
    assert not issubclass(_Body, httpx.AsyncByteStream)


@pytest.mark.slow
async def test_many_at_once() -> None:
    async with client_of(repeating(), max_connections=20) as (client, server):
        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(client.get, "/")
        assert server.accepted <= 20
