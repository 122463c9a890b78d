"""`AnyIOTransport` under the `AsyncClient` of httpx and of httpx2."""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute
from support.blocked import all_tasks_blocked
from support.http_libraries import EACH_LIBRARY, httpx
from support.servers import (
    CHUNKED,
    LAST_CHUNK,
    OK,
    Handler,
    Peer,
    Request,
    Server,
    black_hole,
    client_context,
    closed_port,
    closing,
    open_sockets,
    repeating,
    scripted,
    server_context,
    serving,
)

from gprochat_anyio.transport import AnyIOTransport, _connecting
from gprochat_anyio.transport._anyio_transport import _Body

TLS = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


@asynccontextmanager
async def client_of(
    handler: Handler,
    *,
    library: Any = httpx,
    tls: bool = False,
    limits: Any = 5,
    seconds: float = 10,
    **options: Any,
) -> AsyncIterator[tuple[Any, Server]]:
    """Yield an `AsyncClient` of a server. All its connections must be closed at the end.

    :param seconds: The timeout of the block.
    """
    with anyio.fail_after(seconds):
        async with serving(handler, tls=server_context() if tls else None) as server:
            transport = AnyIOTransport(ssl_context=client_context(), **options)
            async with library.AsyncClient(
                transport=transport, base_url=server.url, timeout=limits
            ) as client:
                yield client, server
            assert open_sockets(server.port) == 0
            await server.all_ended()


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


class TestStreaming:
    @EACH_LIBRARY
    async def test_raw_pieces_come_as_they_are_sent(self, library: Any) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()
            await peer.send(CHUNKED)
            for part in (b"one", b"two", b"three"):
                await peer.send(b"%x\r\n%b\r\n" % (len(part), part))
                await taken.wait()
            await peer.send(LAST_CHUNK)
            await peer.until_closed()

        taken = anyio.Event()
        async with client_of(handle, library=library) as (client, _):
            async with client.stream("GET", "/") as response:
                pieces = response.aiter_raw()
                assert await anext(pieces) == b"one"
                taken.set()
                assert b"".join([piece async for piece in pieces]) == b"twothree"

    # httpx abandons its own generators
    @pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning")
    @TLS
    async def test_leaving_early_closes_the_connection_immediately(self, *, tls: bool) -> None:
        async with client_of(scripted(CHUNKED + b"2\r\nok\r\n"), tls=tls) as (client, server):
            async with client.stream("GET", "/") as response:
                pieces = response.aiter_raw()
                async for piece in pieces:
                    assert piece == b"ok"
                    break
                await pieces.aclose()
            assert open_sockets(server.port) == 0
            await server.all_ended()

    async def test_a_given_chunk_size(self) -> None:
        async with client_of(repeating(CHUNKED + b"5\r\nhello\r\n" + LAST_CHUNK)) as (client, _):
            async with client.stream("GET", "/") as response:
                assert [p async for p in response.aiter_bytes(2)] == [b"he", b"ll", b"o"]

    async def test_framing_alone_is_not_a_piece(self) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()
            await peer.send(CHUNKED + b"2\r\nok")
            await go_on.wait()
            await peer.send(b"\r\n")
            await all_tasks_blocked()
            await peer.send(b"1\r\n!\r\n" + LAST_CHUNK)
            await peer.until_closed()

        go_on = anyio.Event()
        async with client_of(handle) as (client, _):
            async with client.stream("GET", "/") as response:
                pieces = []
                async for piece in response.aiter_raw():
                    pieces.append(piece)
                    go_on.set()
        assert pieces == [b"ok", b"!"]

    @EACH_LIBRARY
    async def test_the_stream_is_of_the_same_library(self, library: Any) -> None:
        async with client_of(repeating(), library=library) as (client, _):
            async with client.stream("GET", "/") as response:
                assert isinstance(response.stream, library.AsyncByteStream)
                assert await response.aread() == b"ok"


class TestReuse:
    async def test_keep_alive(self) -> None:
        async with client_of(repeating()) as (client, server):
            for _ in range(5):
                await client.get("/")
            assert server.accepted == 1

    async def test_connection_close(self) -> None:
        answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
        async with client_of(repeating(answer)) as (client, server):
            for _ in range(3):
                await client.get("/")
                assert open_sockets(server.port) == 0
            assert server.accepted == 3

    async def test_an_unread_response_closes_the_connection(self) -> None:
        async with client_of(repeating(CHUNKED + b"2\r\nok\r\n")) as (client, server):
            for _ in range(3):
                async with client.stream("GET", "/"):
                    pass
            assert server.accepted == 3

    @pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
    @pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
    async def test_idempotent_requests_are_repeated_once(self, method: str, *, reset: bool) -> None:
        """The connection closes in the moment in which the request arrives."""
        seen = 0

        async def handle(peer: Peer) -> None:
            nonlocal seen
            await peer.request()
            seen += 1
            await peer.send(b"HTTP/1.1 204 N\r\n\r\n")
            await peer.received.receive()
            if reset:
                peer.reset()

        async with client_of(handle) as (client, server):
            for _ in range(3):
                assert (await client.request(method, "/")).status_code == 204
            assert seen == server.accepted == 3

    async def test_it_is_repeated_on_a_fresh_connection(self) -> None:
        """Another idle connection may have been closed as well."""

        async def handle(peer: Peer) -> None:
            await peer.request()
            await server.until(lambda: server.accepted > 1)
            await peer.send(OK)
            await peer.request()

        async with client_of(handle) as (client, server):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.get, "/")
                tasks.start_soon(client.get, "/")
            assert (await client.get("/")).text == "ok"
            assert server.accepted == 3

    @pytest.mark.parametrize("method", ["POST", "PATCH"])
    @pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
    async def test_other_requests_are_not_repeated(self, method: str, *, reset: bool) -> None:
        async def handle(peer: Peer) -> None:
            requests.append(await peer.request())
            await peer.send(OK)
            requests.append(await peer.request())
            if reset:
                peer.reset()

        requests: list[Request] = []
        async with client_of(handle) as (client, server):
            await client.request(method, "/", content=b"1")
            with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)) as caught:
                await client.request(method, "/", content=b"2")
            assert "before it responded" in str(caught.value)
            assert server.accepted == 1
        assert [request.body for request in requests] == [b"1", b"2"]

    async def test_a_body_that_cannot_be_repeated_is_not(self) -> None:
        async def parts() -> AsyncGenerator[bytes]:
            yield b"x"

        async def handle(peer: Peer) -> None:
            await peer.request()
            await peer.send(OK)
            await peer.request()

        async with client_of(handle) as (client, server):
            await client.get("/")
            with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
                await client.put("/", content=parts())
            assert server.accepted == 1

    async def test_a_request_on_a_new_connection_is_not_repeated(self) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()

        async with client_of(handle) as (client, server):
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/")
            assert server.accepted == 1

    async def test_a_request_with_a_partial_response_is_not_repeated(self) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()
            await peer.send(OK)
            await peer.request()
            await peer.send(b"HTTP/1.1 2")

        async with client_of(handle) as (client, server):
            await client.get("/")
            with pytest.raises(httpx.RemoteProtocolError, match="before its response was complete"):
                await client.get("/")
            assert server.accepted == 1

    @pytest.mark.slow
    async def test_a_server_that_closes_at_the_clients_moment(self) -> None:
        """The caller gets no error, and no request gets two responses."""
        chance = random.Random(7)
        answered: list[str] = []

        async def handle(peer: Peer) -> None:
            for _ in range(chance.randrange(1, 4)):
                request = await peer.request()
                await peer.send(OK)
                answered.append(request.place)
            with anyio.move_on_after(chance.random() * 0.002):
                await peer.received.receive()

        async def ask(name: int) -> None:
            for number in range(100):
                assert (await client.get(f"/{name}-{number}")).text == "ok"
                await anyio.sleep(chance.random() * 0.002)

        async with client_of(handle, seconds=60) as (client, server):
            async with anyio.create_task_group() as tasks:
                for name in range(10):
                    tasks.start_soon(ask, name)
            assert server.accepted > 200
        assert sorted(answered) == sorted(f"/{m}-{n}" for m in range(10) for n in range(100))

    async def test_an_http_1_0_server(self) -> None:
        async with client_of(closing(b"HTTP/1.0 200 OK\r\n\r\nok")) as (client, server):
            for _ in range(2):
                got = await client.get("/")
                assert (got.text, got.http_version) == ("ok", "HTTP/1.0")
            assert server.accepted == 2


class TestTimeouts:
    """Each of httpx's four limits has its own exception."""

    @EACH_LIBRARY
    async def test_connect(self, library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        async def connect_socket(*_: object) -> Any:
            await anyio.sleep_forever()

        monkeypatch.setattr(_connecting, "_connect_socket", connect_socket)
        timeout = library.Timeout(5, connect=0.02)
        async with library.AsyncClient(transport=AnyIOTransport(), timeout=timeout) as client:
            with pytest.raises(library.ConnectTimeout, match=r"^connect took more than 0\.02 s$"):
                await client.get("http://site.test/")

    async def test_connect_includes_the_handshake(self) -> None:
        with anyio.fail_after(10):
            async with serving(black_hole) as server:
                transport = AnyIOTransport()
                timeout = httpx.Timeout(5, connect=0.05)
                async with httpx.AsyncClient(transport=transport, timeout=timeout) as client:
                    with pytest.raises(httpx.ConnectTimeout):
                        await client.get(f"https://127.0.0.1:{server.port}/")
                    assert open_sockets(server.port) == 0
                await server.all_ended()

    @EACH_LIBRARY
    async def test_read_of_the_head(self, library: Any) -> None:
        timeout = library.Timeout(5, read=0.02)
        async with client_of(black_hole, library=library, limits=timeout) as (client, server):
            with pytest.raises(
                library.ReadTimeout, match=r"^read took more than 0\.02 s$"
            ) as caught:
                await client.post("/", content=b"x")
            assert caught.value.request.method == "POST"
            assert caught.value.__cause__ is None
            assert open_sockets(server.port) == 0

    @EACH_LIBRARY
    async def test_read_of_the_body(self, library: Any) -> None:
        timeout = library.Timeout(5, read=0.02)
        handler = scripted(CHUNKED + b"2\r\nok\r\n")
        async with client_of(handler, library=library, limits=timeout) as (client, server):
            with pytest.raises(library.ReadTimeout):
                await client.get("/")
            assert open_sockets(server.port) == 0

    @pytest.mark.slow
    async def test_read_is_for_each_read(self) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()
            for byte in CHUNKED + b"2\r\nok\r\n" + LAST_CHUNK:
                await peer.send(bytes([byte]))
                await anyio.sleep(0.03)
            await peer.until_closed()

        timeout = httpx.Timeout(5, read=1)
        async with client_of(handle, limits=timeout) as (client, _):
            assert (await client.get("/")).text == "ok"

    @EACH_LIBRARY
    @pytest.mark.parametrize("body", ["bytes", "iterator", "small"])
    async def test_write(self, library: Any, body: str) -> None:
        async def endless() -> AsyncGenerator[bytes]:
            while True:
                yield b"x" * 65536

        async def handle(peer: Peer) -> None:
            raw = peer.stream.extra(SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await go_on.wait()

        go_on = anyio.Event()
        timeout = library.Timeout(5, write=0.05)
        parts = endless()
        content: Any = b"x" * 50_000_000 if body == "bytes" else parts
        async with (
            aclosing(parts),
            client_of(handle, library=library, limits=timeout) as (client, server),
        ):
            if body == "small":  # fits into the kernel's buffers: the client waits for a response
                with pytest.raises(library.ReadTimeout):
                    await client.post("/", content=b"x" * 100, timeout=library.Timeout(0.05))
            else:
                with pytest.raises(library.WriteTimeout, match=r"^write took more than 0\.05 s$"):
                    await client.post("/", content=content)
            assert open_sockets(server.port) == 0
            go_on.set()

    @EACH_LIBRARY
    async def test_pool(self, library: Any) -> None:
        timeout = library.Timeout(5, pool=0.02)
        handler = scripted(CHUNKED)
        async with client_of(handler, library=library, limits=timeout, max_connections=1) as (
            client,
            _,
        ):
            async with client.stream("GET", "/"):
                with pytest.raises(library.PoolTimeout, match=r"^pool took more than 0\.02 s$"):
                    await client.get("/")

    async def test_a_repeated_request_that_waits_again_is_limited_by_pool(self) -> None:
        """An idle connection was closed. Another request gets the only slot first."""

        async def handle(peer: Peer) -> None:
            if server.accepted == 1:
                await peer.request()
                await peer.send(OK)
                await peer.request()
                second.set()
                await go_on.wait()
            else:
                await black_hole(peer)

        async def repeated() -> None:
            with pytest.raises(httpx.PoolTimeout):
                await client.get("/")
            tasks.cancel_scope.cancel()

        second, go_on = anyio.Event(), anyio.Event()
        limits = httpx.Timeout(5, pool=0.05)
        async with client_of(handle, limits=limits, max_connections=1) as (client, server):
            await client.get("/")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(repeated)
                await second.wait()
                tasks.start_soon(partial(client.get, "/", timeout=None))
                await all_tasks_blocked()
                go_on.set()

    async def test_none_is_no_limit(self) -> None:
        async with client_of(repeating(), limits=None) as (client, _):
            assert (await client.get("/")).text == "ok"

    async def test_no_timeouts_at_all(self) -> None:
        with anyio.fail_after(5):
            async with serving(repeating()) as server:
                transport = AnyIOTransport()
                request = httpx.Request("GET", server.url)
                response = await transport.handle_async_request(request)
                assert await response.aread() == b"ok"
                await transport.aclose()


class TestFailures:
    """Each failure becomes an exception of httpx, with a message and without a chain."""

    @EACH_LIBRARY
    @pytest.mark.parametrize(
        ("handler", "name", "message"),
        [
            (closing(b""), "RemoteProtocolError", "closed by the peer before it responded"),
            (closing(b"HTTP/1.1 2"), "RemoteProtocolError", "before its response was complete"),
            (closing(OK[:-1]), "RemoteProtocolError", "before its response was complete"),
            (closing(CHUNKED), "RemoteProtocolError", "before its response was complete"),
            (closing(b"HTTP/2.0 200 OK\r\n\r\n"), "RemoteProtocolError", "HTTP/2.0"),
            (closing(b"hello"), "RemoteProtocolError", "is not valid HTTP/1.1"),
            (closing(CHUNKED + b"x"), "RemoteProtocolError", "is not valid HTTP/1.1"),
        ],
    )
    async def test_of_the_server(
        self, library: Any, handler: Handler, name: str, message: str
    ) -> None:
        async with client_of(handler, library=library) as (client, server):
            with pytest.raises(getattr(library, name), match=message) as caught:
                await client.get("/")
            assert caught.value.request.url == server.url + "/"
            assert caught.value.__cause__ is caught.value.__context__ is None
            assert open_sockets(server.port) == 0

    @EACH_LIBRARY
    @pytest.mark.parametrize("start", [b"", CHUNKED + b"2\r\nok\r\n"], ids=["head", "body"])
    async def test_of_the_network(self, library: Any, start: bytes) -> None:
        async def handle(peer: Peer) -> None:
            await peer.request()
            if start:
                await peer.send(start)
                await taken.wait()
            peer.reset()

        taken = anyio.Event()
        async with client_of(handle, library=library) as (client, server):
            with pytest.raises(library.ReadError, match="the connection broke before") as caught:
                async with client.stream("GET", "/") as response:
                    async for _ in response.aiter_raw():
                        taken.set()
            assert caught.value.__cause__ is None
            assert open_sockets(server.port) == 0

    @EACH_LIBRARY
    async def test_to_connect(self, library: Any) -> None:
        async with library.AsyncClient(transport=AnyIOTransport()) as client:
            with pytest.raises(library.ConnectError, match="could not connect to 127"):
                await client.get(f"http://127.0.0.1:{closed_port()}/")

    @EACH_LIBRARY
    async def test_of_tls(self, library: Any) -> None:
        async with serving(black_hole, tls=server_context()) as server:
            transport = AnyIOTransport(ssl_context=ssl.create_default_context())
            async with library.AsyncClient(transport=transport) as client:
                with pytest.raises(library.ConnectError, match="certificate is not valid"):
                    await client.get(f"https://127.0.0.1:{server.port}/")

    @EACH_LIBRARY
    async def test_of_the_proxy(self, library: Any) -> None:
        transport = AnyIOTransport(proxy=f"http://127.0.0.1:{closed_port()}")
        async with library.AsyncClient(transport=transport) as client:
            with pytest.raises(library.ProxyError, match="the proxy cannot be reached"):
                await client.get("https://site.test/")

    @EACH_LIBRARY
    @pytest.mark.parametrize("size", [50_000_000, None], ids=["bytes", "iterator"])
    async def test_a_refusal_stops_sending(self, library: Any, size: int | None) -> None:
        """The server reads nothing of an endless body."""

        async def endless() -> AsyncGenerator[bytes]:
            while True:
                yield b"x" * 65536

        async def handle(peer: Peer) -> None:
            await peer.head()
            await peer.send(b"HTTP/1.1 413 Large\r\nContent-Length: 2\r\n\r\nno")
            await left.wait()

        left = anyio.Event()
        parts = endless()
        async with aclosing(parts), client_of(handle, library=library) as (client, server):
            got = await client.post("/", content=parts if size is None else b"x" * size)
            assert (got.status_code, got.text) == (413, "no")
            assert open_sockets(server.port) == 0
            left.set()

    async def test_after_one_the_next_request_succeeds(self) -> None:
        async def handle(peer: Peer) -> None:
            count = server_.accepted
            await peer.request()
            await peer.send(b"nonsense" if count % 2 else OK)

        async with client_of(handle, max_connections=1) as (client, server_):
            for _ in range(5):
                with pytest.raises(httpx.RemoteProtocolError):
                    await client.get("/")
                assert (await client.get("/", headers={"Connection": "close"})).text == "ok"


async def test_a_foreign_stream_is_rejected() -> None:
    assert not issubclass(_Body, httpx.AsyncByteStream)


@pytest.mark.slow
async def test_many_at_once() -> None:
    async with client_of(repeating(), max_connections=20) as (client, server):
        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(client.get, "/")
        assert server.accepted <= 20
