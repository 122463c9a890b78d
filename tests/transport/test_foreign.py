"""Transports of httpx and httpx2 as a client's transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from support.blocked import all_tasks_blocked
from support.http_libraries import EACH_LIBRARY, LIBRARIES, httpx
from support.loops import VIRTUAL_LOOPS
from support.response_bytes import chunk
from support.scripted import reply
from support.servers import CHUNKED, Peer, Request, repeating, serving

from gprochat_anyio import (
    Client,
    EmptyReplyError,
    Finished,
    GPROChatError,
    RateLimitError,
    ReplyInterruptedError,
    RequestTimeoutError,
    Retry,
    SiteConnectionError,
    SiteError,
    Timeouts,
    UnexpectedResponseError,
    fan_out,
    gather,
)
from gprochat_anyio.testing import scripted_site
from gprochat_anyio.transport import AnyIOTransport
from gprochat_anyio.transport._anyio_transport import connections_of
from gprochat_anyio.transport._http_library import library_of

VIRTUAL = pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)
TEXT = {"content-type": "text/plain; charset=utf-8"}
ONCE = Retry(attempts=1)


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


class TestFailures:
    @pytest.mark.parametrize(
        ("name", "expected", "phase"),
        [
            ("ConnectTimeout", RequestTimeoutError, "connect"),
            ("ReadTimeout", RequestTimeoutError, "first_chunk"),
            ("WriteTimeout", RequestTimeoutError, "first_chunk"),
            ("PoolTimeout", RequestTimeoutError, "first_chunk"),
            ("TimeoutException", RequestTimeoutError, "first_chunk"),
            ("ConnectError", SiteConnectionError, None),
            ("ProxyError", SiteConnectionError, None),
            ("UnsupportedProtocol", SiteConnectionError, None),
            ("ReadError", SiteConnectionError, None),
            ("WriteError", SiteConnectionError, None),
            ("CloseError", SiteConnectionError, None),
            ("NetworkError", SiteConnectionError, None),
            ("LocalProtocolError", SiteConnectionError, None),
            ("RemoteProtocolError", SiteConnectionError, None),
            ("ProtocolError", SiteConnectionError, None),
            ("TransportError", SiteConnectionError, None),
            ("DecodingError", SiteConnectionError, None),
            ("TooManyRedirects", SiteConnectionError, None),
            ("RequestError", SiteConnectionError, None),
            ("HTTPError", SiteConnectionError, None),
            ("InvalidURL", SiteConnectionError, None),
            ("StreamError", SiteConnectionError, None),
        ],
    )
    @EACH_LIBRARY
    async def test_before_the_response(
        self, library: Any, name: str, expected: type[GPROChatError], phase: str | None
    ) -> None:
        def handler(request: Any) -> Any:
            raise getattr(library, name)("what it says")

        async with client_by(library.MockTransport(handler)) as client:
            with pytest.raises(GPROChatError) as caught:
                await client.ask("Hi")
        assert type(caught.value) is expected
        assert f"{name}: what it says" in str(caught.value)
        assert getattr(caught.value, "phase", None) == phase
        assert caught.value.__cause__ is caught.value.__context__ is None

    @pytest.mark.parametrize(
        "error",
        [
            httpx.ReadError(""),
            httpx.ReadTimeout("slow"),
            httpx.StreamClosed(),
            LIBRARIES[-1].RemoteProtocolError("gone"),
            LIBRARIES[-1].ReadTimeout(""),
            ConnectionResetError(104, "Connection reset by peer"),
            anyio.BrokenResourceError(),
            anyio.ClosedResourceError(),
            anyio.EndOfStream(),
        ],
        ids=lambda error: f"{type(error).__module__}.{type(error).__name__}",
    )
    @pytest.mark.parametrize("sent", [0, 2])
    async def test_within_the_body(self, error: Exception, sent: int) -> None:
        async def body() -> AsyncGenerator[bytes]:
            for _ in range(sent):
                yield b"ok"
            raise error

        library = library_of(error)
        transport = streaming(library, body)
        async with client_by(transport) as client:
            with pytest.raises(GPROChatError, match=type(error).__name__) as caught:
                await client.ask("Hi")
        assert type(caught.value) is ReplyInterruptedError
        assert caught.value.partial_text == "ok" * sent
        assert caught.value.__cause__ is caught.value.__context__ is None
        assert transport.stream.closed == 1

    @pytest.mark.parametrize("kind", [KeyError, KeyboardInterrupt, pytest.fail.Exception])
    @pytest.mark.parametrize("way", ["ask", "stream"])
    async def test_an_exception_of_the_transport_is_not_wrapped(
        self, kind: type[BaseException], way: str
    ) -> None:
        """It is raised in the caller's own task, not in the background task."""
        own = kind("own")

        def handler(request: Any) -> Any:
            raise own

        async with client_by(httpx.MockTransport(handler)) as client:
            with pytest.raises(kind) as caught:
                await text_by(client, way)
        assert caught.value is own

    async def test_an_interrupt_within_the_body(self) -> None:
        async def body() -> AsyncGenerator[bytes]:
            yield b"Hello"
            raise KeyboardInterrupt

        async with client_by(streaming(httpx, body)) as client:
            async with client.stream("Hi") as chunks:
                assert await chunks.receive() == "Hello"
                with pytest.raises(KeyboardInterrupt):
                    await chunks.receive()

    async def test_a_transport_that_cancels_its_task(self, anyio_backend_name: str) -> None:
        if anyio_backend_name == "trio":
            pytest.skip("requires asyncio")

        async def body() -> AsyncGenerator[bytes]:
            yield b""
            raise asyncio.CancelledError

        async with client_by(streaming(httpx, body)) as client:
            with pytest.raises(ReplyInterruptedError, match="cancelled"):
                await client.ask("Hi")

    @EACH_LIBRARY
    async def test_a_close_that_fails(self, library: Any) -> None:
        """The error does not reach the caller, who has the reply or a more useful error."""
        transport = streaming(library, hello)

        async def failing(self: Any) -> None:
            raise library.CloseError("cannot close")

        transport.stream.aclose = failing
        async with client_by(transport) as client:
            assert (await client.ask("Hi")).text == "Hello w\xf6rld"
            async with client.stream("Hi") as chunks:
                assert await chunks.receive() == "Hel"


class TestBackpressure:
    async def test_a_transport_is_read_only_as_far_as_the_consumer_allows(self) -> None:
        taken = 0

        async def body() -> AsyncGenerator[bytes]:
            nonlocal taken
            for _ in range(100):
                taken += 1
                yield b"x" * 10_000

        async with client_by(streaming(httpx, body)) as client, client.stream("Hi") as chunks:
            await all_tasks_blocked()
            assert taken == 7  # 64 KiB, and the piece in progress
            assert len(await chunks.read()) == 1_000_000
        assert taken == 100


class TestClosing:
    @VIRTUAL
    @pytest.mark.parametrize("where", ["iterator", "response"])
    async def test_is_limited(self, where: str) -> None:
        async def body() -> AsyncGenerator[bytes]:
            try:
                yield b"Hello"
                await anyio.sleep_forever()
            finally:
                await stall("iterator")

        async def stall(here: str) -> None:
            if here == where:
                await anyio.sleep_forever()

        transport = streaming(httpx, body)

        async def close(self: Any) -> None:
            await stall("response")

        transport.stream.aclose = close
        async with client_by(transport) as client:
            began = anyio.current_time()
            async with client.stream("Hi") as chunks:
                assert await chunks.receive() == "Hello"
            assert anyio.current_time() - began <= 1

    @VIRTUAL
    async def test_a_transport_that_ignores_cancellation(self) -> None:
        """The caller waits for a second. A later response is closed and discarded."""
        answers = streaming(httpx, hello)

        class Stubborn(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                with anyio.CancelScope(shield=True):
                    await go_on.wait()
                return await answers.handle_async_request(request)  # type: ignore[no-any-return]

        go_on = anyio.Event()
        async with client_by(Stubborn()) as client:
            began = anyio.current_time()
            with anyio.move_on_after(5):
                await client.ask("Hi")
            assert anyio.current_time() - began == pytest.approx(6)
            go_on.set()
            await anyio.sleep(1)
            assert answers.stream.closed == 1

    async def test_ends_the_iterator(self) -> None:
        ended = False

        async def body() -> AsyncGenerator[bytes]:
            nonlocal ended
            try:
                while True:
                    yield b"Hello"
            finally:
                ended = True

        async with client_by(streaming(httpx, body)) as client:
            async with client.stream("Hi") as chunks:
                await chunks.receive()
            assert ended

    async def test_an_iterator_that_is_not_a_generator(self) -> None:
        class Endless:
            def __aiter__(self) -> Any:
                return self

            async def __anext__(self) -> bytes:
                await anyio.lowlevel.checkpoint()
                return b"Hello"

        transport = streaming(httpx, Endless)
        async with client_by(transport) as client:
            async with client.stream("Hi") as chunks:
                await chunks.receive()
            assert transport.stream.closed == 1

    @pytest.mark.parametrize("where", ["request", "body"])
    async def test_an_error_that_replaces_a_cancellation_is_discarded(self, where: str) -> None:
        waits, ended = anyio.Event(), anyio.Event()

        async def wait(here: str) -> None:
            if here == where:
                waits.set()
                try:
                    await anyio.sleep_forever()
                finally:
                    ended.set()
                    raise httpx.ReadError("cancelled")

        async def body() -> AsyncGenerator[bytes]:
            yield b"Hello"
            await wait("body")

        class Transport(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                await wait("request")
                inner = streaming(httpx, body)
                return await inner.handle_async_request(request)  # type: ignore[no-any-return]

        with anyio.fail_after(10):
            async with client_by(Transport()) as client:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(client.ask, "Hi")
                    await waits.wait()
                    tasks.cancel_scope.cancel()
                assert ended.is_set()


class TestPausing:
    """A transport is not asked for more data while its consumer is behind."""

    @VIRTUAL
    async def test_until_the_consumer_resumes(self) -> None:
        """Meanwhile no deadline of the site runs."""
        asked = 0

        async def body() -> AsyncGenerator[bytes]:
            nonlocal asked
            for _ in range(50):
                asked += 1
                yield b"x" * 10_000

        async with client_by(streaming(httpx, body), timeouts=Timeouts(idle=10)) as client:
            async with client.stream("Hi") as chunks:
                assert await chunks.receive() == "x" * 10_000
                await anyio.sleep(100)
                assert asked <= 8  # 64 KiB, one further piece, and the received one
                assert len(await chunks.read()) == 490_000
            assert asked == 50


class TestClocks:
    """With httpcore's trace events, the deadlines follow the transport's stages."""

    def transport(self, connect: float, answer: float, text: float) -> Any:
        class Transport(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                trace = request.extensions["trace"]
                await trace("connection.connect_tcp.started", {})
                await anyio.sleep(connect)
                await trace("connection.connect_tcp.complete", {})
                await trace("http11.send_request_headers.started", {})
                await anyio.sleep(answer)
                inner = streaming(httpx, body)
                return await inner.handle_async_request(request)  # type: ignore[no-any-return]

        async def body() -> AsyncGenerator[bytes]:
            await anyio.sleep(text)
            yield b"Hello"

        return Transport()

    @VIRTUAL
    async def test_connect(self) -> None:
        timeouts = Timeouts(connect=2, first_chunk=50)
        async with client_by(self.transport(3, 0, 0), timeouts=timeouts) as client:
            with pytest.raises(RequestTimeoutError) as caught:
                await client.ask("Hi")
        assert caught.value.phase == "connect"
        assert caught.value.elapsed == pytest.approx(2)

    @VIRTUAL
    async def test_first_chunk(self) -> None:
        timeouts = Timeouts(connect=2, first_chunk=50)
        async with client_by(self.transport(1, 20, 20), timeouts=timeouts) as client:
            got = await client.ask("Hi")
        assert got.text == "Hello"
        assert got.timing.connect == pytest.approx(1)
        assert got.timing.first_chunk == pytest.approx(40)

    @VIRTUAL
    async def test_idle_ends_a_long_silence(self) -> None:
        timeouts = Timeouts(connect=2, first_chunk=30)
        async with client_by(self.transport(1, 20, 20), timeouts=timeouts) as client:
            with pytest.raises(RequestTimeoutError) as caught:
                await client.ask("Hi")
        assert caught.value.phase == "first_chunk"
        assert caught.value.elapsed == pytest.approx(30)

    @VIRTUAL
    async def test_without_events_only_first_chunk_applies(self) -> None:
        async def body() -> AsyncGenerator[bytes]:
            await anyio.sleep(40)
            yield b"Hello"

        timeouts = Timeouts(connect=2, first_chunk=30)
        async with client_by(streaming(httpx, body), timeouts=timeouts) as client:
            with pytest.raises(RequestTimeoutError) as caught:
                await client.ask("Hi")
        assert caught.value.phase == "first_chunk"


async def test_its_own_transport_is_used_without_httpx_between() -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply("Hello", "Internal server error"))

    with anyio.fail_after(10):
        async with serving(handle) as server:
            transport = AnyIOTransport(max_connections=1)
            async with Client(server.url, transport=transport, retry=ONCE) as client:
                with pytest.raises(ReplyInterruptedError, match="its model failed"):
                    await client.ask("Hi")
            own = connections_of(transport)
            assert own is not None
            assert own.pool._closed


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


@pytest.mark.parametrize(
    ("thing", "library"),
    [
        (httpx.Request("GET", "http://site.test"), httpx),
        (LIBRARIES[-1].Request("GET", "http://site.test"), LIBRARIES[-1]),
        (LIBRARIES[-1].MockTransport(lambda _: LIBRARIES[-1].Response(200)), LIBRARIES[-1]),
        (object(), httpx),
    ],
)
def test_the_library_of_an_object(thing: object, library: Any) -> None:
    assert library_of(thing) is library


class TestCancelledReads:
    """A transport's generator is read by its own task, so no caller's cancellation ends it."""

    def transport(self, pause: float) -> Any:
        async def body() -> AsyncGenerator[bytes]:
            for piece in (b"one ", b"two ", b"three ", b"four"):
                yield piece
                await anyio.sleep(pause)

        return streaming(httpx, body)

    @VIRTUAL
    @pytest.mark.parametrize("way", ["ask", "stream", "stream_to", "fan_out", "gather"])
    async def test_a_reply_that_takes_longer_than_idle(self, way: str) -> None:
        """A deadline that is renewed in time cancels nothing."""
        async with client_by(self.transport(6), timeouts=Timeouts(idle=10)) as client:
            assert await text_by(client, way) == "one two three four"

    @VIRTUAL
    @pytest.mark.parametrize("way", ["ask", "stream", "stream_to", "fan_out", "gather"])
    async def test_a_site_that_falls_silent(self, way: str) -> None:
        async with client_by(self.transport(11), timeouts=Timeouts(idle=10)) as client:
            with pytest.raises(RequestTimeoutError) as caught:
                await text_by(client, way)
        assert caught.value.phase == "idle"
        assert caught.value.partial_text == "one "

    @VIRTUAL
    async def test_cancelled_by_the_caller(self) -> None:
        async with client_by(self.transport(6)) as client, client.stream("Hi") as chunks:
            assert await chunks.receive() == "one "
            with anyio.move_on_after(1) as scope:
                await chunks.receive()
            assert scope.cancelled_caught
            assert await chunks.read() == "two three four"
        assert chunks.text == "one two three four"


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


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_proxy_of_its_own_transport_is_used(scheme: str) -> None:
    requests: list[Request] = []

    async def handle(peer: Peer) -> None:
        requests.append(await peer.request())
        await peer.send(reply("Hello"))

    with anyio.fail_after(10):
        async with serving(handle) as server:
            proxy = server.url.replace("://", "://user:pass@")
            transport = AnyIOTransport(proxy=proxy)
            async with Client(f"{scheme}://site.test", transport=transport, retry=ONCE) as client:
                if scheme == "http":
                    assert (await client.ask("Hi")).text == "Hello"
                else:
                    with pytest.raises(SiteConnectionError):
                        await client.ask("Hi")
    (request,) = requests
    place = {"http": "http://site.test/api/generate", "https": "site.test:443"}[scheme]
    assert request.place == place
    assert request.headers["proxy-authorization"] == "Basic dXNlcjpwYXNz"


async def test_a_subclass_of_its_own_transport() -> None:
    seen: list[str] = []

    class Telling(AnyIOTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            seen.append(request.url.path)
            return await super().handle_async_request(request)

    async with scripted_site("Hello") as site, site.client(transport=Telling()) as client:
        assert (await client.ask("Hi")).text == "Hello"
    assert seen == ["/api/generate"]
