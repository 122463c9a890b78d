"""Connections in memory: a task reads them while they have a receiver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest
from support.blocked import all_tasks_blocked
from support.reactors import running_reactor

from gprochat_anyio.transport._pool import Pool
from gprochat_anyio.transport._pumped_connection import PumpedConnection
from gprochat_anyio.transport._reactor import current_reactor
from gprochat_anyio.transport._target import Target
from gprochat_anyio.transport._wiring import in_memory

from .receivers import Listening

TARGET = Target("http", "site.test", 80)


class Stream:
    """The client's end of a connection, whose other end is the test."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.broken = self.closed = False
        self.incoming, self._arriving = anyio.create_memory_object_stream[bytes | Exception](10)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        item = await self._arriving.receive()
        if isinstance(item, Exception):
            raise item
        return item

    async def send(self, item: bytes) -> None:
        if self.broken:
            raise anyio.BrokenResourceError
        self.sent.append(item)

    def close(self) -> None:
        self.closed = True
        self.incoming.close()
        self._arriving.close()


@contextmanager
def pumped() -> Iterator[tuple[PumpedConnection, Stream, Listening]]:
    """Yield a connection with a receiver."""
    stream = Stream()
    connection = PumpedConnection(stream, TARGET, current_reactor())
    connection.receiver = listening = Listening()
    try:
        yield connection, stream, listening
    finally:
        connection.close()
        connection.close()  # closing again has no effect
        assert stream.closed
        assert connection.fileno() == -1
        assert running_reactor() is None


async def test_data_is_pushed() -> None:
    with pumped() as (connection, stream, listening):
        for part in (b"one", b"two"):
            await connection.send(b"?")
            await stream.incoming.send(part)
            assert await listening.next() == part
        assert stream.sent == [b"?", b"?"]
        connection.look()
        assert listening.data == b"onetwo"
        assert connection.is_quiet()
    assert not connection.is_quiet()


@pytest.mark.parametrize("error", [None, anyio.BrokenResourceError(), OSError("lost")])
async def test_its_end_is_reported(error: Exception | None) -> None:
    with pumped() as (connection, stream, listening):
        await connection.send(b"?")
        await stream.incoming.send(b"data")
        if error is None:
            stream.incoming.close()
        else:
            await stream.incoming.send(error)
        await listening.until_over()
        assert listening.told == [b"data", "lost"]
        assert listening.error is error


async def test_a_failure_to_send_is_reported_by_reading() -> None:
    with pumped() as (connection, stream, listening):
        stream.broken = True
        await connection.send(b"?")
        stream.incoming.close()
        await listening.until_over()
        assert listening.told == ["lost"]


async def test_paused_nothing_is_read() -> None:
    with pumped() as (connection, stream, listening):
        connection.pause()
        await connection.send(b"?")
        await stream.incoming.send(b"data")
        await all_tasks_blocked()
        assert listening.told == []
        connection.resume()
        await listening.until(b"data")


async def test_nothing_is_read_without_a_receiver() -> None:
    with pumped() as (connection, stream, listening):
        await connection.send(b"?")
        await all_tasks_blocked()
        connection.receiver = None
        await stream.incoming.send(b"data")
        await all_tasks_blocked()
        assert listening.told == []
        assert connection._cancel is None


async def test_a_receiver_may_remove_itself() -> None:
    class Once(Listening):
        def feed(self, data: bytes) -> None:
            connection.receiver = None
            super().feed(data)

    with pumped() as (connection, stream, _):
        connection.receiver = once = Once()
        await connection.send(b"?")
        await stream.incoming.send(b"data")
        await once.until(b"data")
        await all_tasks_blocked()
        assert connection._cancel is None
        connection.receiver = listening = Listening()
        await connection.send(b"?")
        await stream.incoming.send(b"more")
        await listening.until(b"more")


@pytest.mark.parametrize("has_receiver", [True, False])
async def test_a_defect_fails_the_receiver(
    caplog: pytest.LogCaptureFixture, *, has_receiver: bool
) -> None:
    class Broken(Listening):
        def feed(self, data: bytes) -> None:
            if not has_receiver:
                connection.receiver = None
            raise ZeroDivisionError

    with pumped() as (connection, stream, _):
        connection.receiver = broken = Broken()
        await connection.send(b"?")
        await stream.incoming.send(b"data")
        await all_tasks_blocked()
        assert broken.told == (["broken"] if has_receiver else [])
        assert connection.closed
    assert "because of a bug in gprochat_anyio" in caplog.text


async def test_the_pool_connects_to_a_site_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    async def site() -> Stream:
        return stream

    stream = Stream()
    monkeypatch.setitem(in_memory, "http://site.test", site)
    pool = Pool(max_connections=1)
    connection = await pool.acquire(TARGET, lambda _: None)
    assert isinstance(connection, PumpedConnection)
    pool.give_back(connection, 5)
    assert pool.kept(TARGET) is connection
    assert connection.reused
    pool.discard(connection)
    assert stream.closed
    assert pool.statistics().available == 1
    assert running_reactor() is None
