"""Reading from transports of httpx and httpx2: backpressure, deadlines, cancelled reads."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from support.blocked import all_tasks_blocked
from support.http_libraries import httpx
from support.loops import virtual

from gprochat_anyio import RequestTimeoutError, Timeouts

from .foreign_transports import client_by, streaming, text_by


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


class TestPausing:
    """A transport is not asked for more data while its consumer is behind."""

    @virtual
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

    @virtual
    async def test_connect(self) -> None:
        timeouts = Timeouts(connect=2, first_chunk=50)
        async with client_by(self.transport(3, 0, 0), timeouts=timeouts) as client:
            with pytest.raises(RequestTimeoutError) as caught:
                await client.ask("Hi")
        assert caught.value.phase == "connect"
        assert caught.value.elapsed == pytest.approx(2)

    @virtual
    async def test_first_chunk(self) -> None:
        timeouts = Timeouts(connect=2, first_chunk=50)
        async with client_by(self.transport(1, 20, 20), timeouts=timeouts) as client:
            got = await client.ask("Hi")
        assert got.text == "Hello"
        assert got.timing.connect == pytest.approx(1)
        assert got.timing.first_chunk == pytest.approx(40)

    @virtual
    async def test_idle_ends_a_long_silence(self) -> None:
        timeouts = Timeouts(connect=2, first_chunk=30)
        async with client_by(self.transport(1, 20, 20), timeouts=timeouts) as client:
            with pytest.raises(RequestTimeoutError) as caught:
                await client.ask("Hi")
        assert caught.value.phase == "first_chunk"
        assert caught.value.elapsed == pytest.approx(30)

    @virtual
    async def test_without_events_only_first_chunk_applies(self) -> None:
        async def body() -> AsyncGenerator[bytes]:
            await anyio.sleep(40)
            yield b"Hello"

        timeouts = Timeouts(connect=2, first_chunk=30)
        async with client_by(streaming(httpx, body), timeouts=timeouts) as client:
            with pytest.raises(RequestTimeoutError) as caught:
                await client.ask("Hi")
        assert caught.value.phase == "first_chunk"


class TestCancelledReads:
    """A transport's generator is read by its own task, so no caller's cancellation ends it."""

    def transport(self, pause: float) -> Any:
        async def body() -> AsyncGenerator[bytes]:
            for piece in (b"one ", b"two ", b"three ", b"four"):
                yield piece
                await anyio.sleep(pause)

        return streaming(httpx, body)

    @virtual
    @pytest.mark.parametrize("way", ["ask", "stream", "stream_to", "fan_out", "gather"])
    async def test_a_reply_that_takes_longer_than_idle(self, way: str) -> None:
        """A deadline that is renewed in time cancels nothing."""
        async with client_by(self.transport(6), timeouts=Timeouts(idle=10)) as client:
            assert await text_by(client, way) == "one two three four"

    @virtual
    @pytest.mark.parametrize("way", ["ask", "stream", "stream_to", "fan_out", "gather"])
    async def test_a_site_that_falls_silent(self, way: str) -> None:
        async with client_by(self.transport(11), timeouts=Timeouts(idle=10)) as client:
            with pytest.raises(RequestTimeoutError) as caught:
                await text_by(client, way)
        assert caught.value.phase == "idle"
        assert caught.value.partial_text == "one "

    @virtual
    async def test_cancelled_by_the_caller(self) -> None:
        async with client_by(self.transport(6)) as client, client.stream("Hi") as chunks:
            assert await chunks.receive() == "one "
            with anyio.move_on_after(1) as scope:
                await chunks.receive()
            assert scope.cancelled_caught
            assert await chunks.read() == "two three four"
        assert chunks.text == "one two three four"
