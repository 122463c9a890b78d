"""Sinks of an exchange: pauses, defects, closing."""

from __future__ import annotations

import weakref
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.garbage import without_garbage_collector
from support.servers import OK, repeating, scripted

from gprochat_anyio.transport._exchange import Exchange
from gprochat_anyio.transport._failures import Unreadable
from gprochat_anyio.transport._response_buffer import ResponseBuffer
from gprochat_anyio.transport._response_parser import ResponseParser

from .exchanges import GET, rest_of, site

pytestmark = pytest.mark.usefixtures("reader_tasks")


class Sink:
    """A sink that records its calls."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.exchange: Exchange
        self.over = anyio.Event()

    def on_head(self, response: ResponseParser) -> None:
        self.told.append(response.status)

    def on_body(self, data: bytes) -> None:
        self.told.append(data)

    def on_end(self) -> None:
        self.told.append("end")
        self.over.set()

    def on_failure(self, failure: BaseException) -> None:
        self.told.append(failure)
        self.over.set()


class TestSinks:
    @pytest.mark.parametrize("at", ["on_head", "on_body"])
    async def test_closed_by_its_sink(self, at: str) -> None:
        """Data from the same read is discarded."""
        async with site(scripted(OK)) as to:
            connection = await to.pool.acquire(to.target, to.stages.append)
            sink = Sink()
            made = sink.exchange = Exchange(to.pool, connection, sink)
            take = getattr(sink, at)

            def close(taken: object) -> None:
                take(taken)
                sink.exchange.close()
                sink.over.set()

            setattr(sink, at, close)
            await made.send(GET)
            await sink.over.wait()
            assert sink.told == ([200] if at == "on_head" else [200, b"ok"])
            assert made.closed
            assert to.pool.statistics().available == 5

    @pytest.mark.parametrize("at", ["on_head", "on_body", "on_end"])
    async def test_a_sink_with_a_defect_is_notified(
        self, at: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with site(repeating()) as to:
            connection = await to.pool.acquire(to.target, to.stages.append)
            sink = Sink()
            made = Exchange(to.pool, connection, sink)

            def fail(*_: object) -> None:
                raise ZeroDivisionError

            setattr(sink, at, fail)
            await made.send(GET)
            await sink.over.wait()
            assert isinstance(sink.told[-1], Unreadable)
            assert connection.closed
            assert caplog.records[-1].exc_info is not None
            assert await to.get() == b"ok"
            assert to.server.accepted == 2

    async def test_a_closed_exchange_does_nothing(self) -> None:
        async with site(repeating()) as to:
            connection = await to.pool.acquire(to.target, to.stages.append)
            sink = Sink()
            made = Exchange(to.pool, connection, sink)
            for _ in range(2):
                made.close()
            await made.send(GET)
            made.look()
            made.pause()
            made.resume()
            made.broken(ZeroDivisionError())
            await made.wait_closed()
            assert not made.paused
            assert sink.told == []
            assert to.pool.statistics().available == 5

    async def test_look_takes_available_data(self) -> None:
        async with site(repeating()) as to:
            connection = await to.pool.acquire(to.target, to.stages.append)
            sink = Sink()
            made = Exchange(to.pool, connection, sink)
            await made.send(GET)
            while "end" not in sink.told:
                made.look()
                await checkpoint()
            assert sink.told == [200, b"ok", "end"]

    async def test_paused_and_complete(self) -> None:
        """A connection in the pool is read again, because the site may close it."""
        async with site(scripted(OK)) as to:
            connection = await to.pool.acquire(to.target, to.stages.append)
            sink = Sink()
            made = Exchange(to.pool, connection, sink)
            setattr(sink, "on_body", lambda _: made.pause())  # noqa: B010 - not of the same type
            await made.send(GET)
            await sink.over.wait()
            assert not connection.paused
            assert to.kept == 1


async def test_an_exchange_leaves_no_cycle() -> None:
    class Traced(Exchange):
        __slots__ = ("__weakref__",)

    async with site(repeating()) as to:
        with without_garbage_collector():
            connection = await to.pool.acquire(to.target, to.stages.append)
            buffer = ResponseBuffer(connection.reactor.signal())
            made = buffer.exchange = Traced(to.pool, connection, buffer)
            await made.send(GET)
            assert await rest_of(buffer) == b"ok"
            gone: list[weakref.ref[Any]] = [weakref.ref(made), weakref.ref(buffer)]
            made.close()
            del made, buffer
            assert [each() for each in gone] == [None, None]
