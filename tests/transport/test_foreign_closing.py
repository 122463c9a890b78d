"""Closing of transports of httpx and httpx2, which takes a limited time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from support.http_libraries import httpx
from support.loops import virtual

from .foreign_transports import client_by, hello, streaming


class TestClosing:
    @virtual
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

    @virtual
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
