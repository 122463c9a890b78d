"""Failures of transports of httpx and httpx2: network errors, defects, cancellations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from support.http_libraries import EACH_LIBRARY, LIBRARIES, httpx

from gprochat_anyio import (
    GPROChatError,
    ReplyInterruptedError,
    RequestTimeoutError,
    SiteConnectionError,
)
from gprochat_anyio.transport._http_library import library_of

from .foreign_transports import client_by, hello, streaming, text_by


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
