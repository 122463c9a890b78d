"""Reading from a connection: nothing is read ahead or lost, and each end is reported."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.blocked import all_tasks_blocked
from support.reactors import running_reactor

from gprochat_anyio.transport._reactor import READ, WRITE

from .marks import TLS
from .pairs import always, pair, unread, until_sending

pytestmark = pytest.mark.usefixtures("reader_tasks")


class TestReading:
    @TLS
    async def test_data_goes_both_ways(self, *, tls: bool) -> None:
        async with pair(tls=tls) as ends:
            await ends.connection.send(b"hello")
            assert await ends.peer.received.receive_exactly(5) == b"hello"
            await ends.peer.send(b"world")
            await ends.listening.until(b"world")
            await ends.peer.stream.aclose()
            await ends.listening.until_over()
            assert (ends.listening.error is None) is not tls

    async def test_a_spurious_event(self) -> None:
        async with pair() as ends:
            ends.connection._on_ready(READ | WRITE)
            assert ends.listening.told == []
            await ends.peer.send(b"data")
            await ends.listening.until(b"data")

    @TLS
    async def test_look_reads_available_data(self, *, tls: bool) -> None:
        async with pair(tls=tls) as ends:
            ends.connection.look()
            assert ends.listening.told == []
            ends.connection.pause()
            await ends.peer.send(b"data")
            while not unread(ends.connection):
                await checkpoint()
            ends.connection.look()
            assert ends.listening.told == []
            ends.connection.resume()
            ends.connection.look()
            assert ends.listening.told == [b"data"]

    async def test_look_is_limited(self) -> None:
        """A flood does not delay the event loop at a deadline."""
        async with pair() as ends:
            ends.connection._recv = always(b"x")
            ends.connection.look()
            assert len(ends.listening.data) == 16


class TestPausing:
    @TLS
    async def test_nothing_is_read(self, *, tls: bool) -> None:
        async with pair(tls=tls) as ends:
            ends.connection.pause()
            assert ends.connection.paused
            reactor = running_reactor()
            assert reactor is not None
            assert reactor._watched == {}
            await ends.peer.send(b"data")
            while not unread(ends.connection):
                await checkpoint()
            await all_tasks_blocked()
            assert ends.listening.told == []
            ends.connection.resume()
            await ends.listening.until(b"data")

    @pytest.mark.parametrize("end", ["FIN", "RST"])
    async def test_an_end_is_reported_after_the_data(self, end: str) -> None:
        """Before that, it does not occupy the reactor: the socket is in no selector."""
        async with pair() as ends:
            await ends.peer.send(b"data")
            await ends.listening.until(b"data")
            ends.connection.pause()
            if end == "RST":
                ends.peer.reset()
            await ends.peer.stream.aclose()
            for _ in range(10):
                await checkpoint()
            await all_tasks_blocked()
            assert ends.listening.told == [b"data"]
            ends.connection.resume()
            await ends.listening.until_over()
            assert isinstance(ends.listening.error, ConnectionResetError) is (end == "RST")

    async def test_an_event_from_before_the_pause(self) -> None:
        """The reactor may have fetched the event already."""
        async with pair() as ends:
            ends.connection.pause()
            await ends.peer.send(b"data")
            while not unread(ends.connection):
                await checkpoint()
            ends.connection._on_ready(READ)
            assert ends.listening.told == []

    async def test_while_sending(self) -> None:
        async with pair() as ends, anyio.create_task_group() as tasks:
            data = bytes(20_000_000)
            tasks.start_soon(ends.connection.send, data)
            await until_sending(ends.connection)
            ends.connection.pause()
            await ends.peer.send(b"data")
            assert await ends.peer.received.receive_exactly(len(data)) == data
            assert ends.listening.told == []
            ends.connection.resume()
            await ends.listening.until(b"data")

    async def test_a_closed_connection_stays_closed(self) -> None:
        async with pair() as ends:
            ends.connection.close()
            ends.connection.resume()
            ends.connection.look()
            assert ends.connection.paused


class TestIdle:
    @pytest.mark.parametrize("end", ["FIN", "RST", "data"])
    async def test_data_is_unsolicited(self, end: str) -> None:
        async with pair() as ends:
            told: list[object] = []
            ends.connection.receiver = None
            ends.connection.on_unsolicited = told.append
            if end == "data":
                await ends.peer.send(b"!")
            else:
                if end == "RST":
                    ends.peer.reset()
                await ends.peer.stream.aclose()
            while not told:
                await checkpoint()
            for _ in range(5):
                await checkpoint()
            assert told == [ends.connection]
            assert not ends.connection.is_quiet()

    @TLS
    async def test_without_a_callback(self, *, tls: bool) -> None:
        async with pair(tls=tls) as ends:
            ends.connection.receiver = None
            assert ends.connection.is_quiet()
            await ends.peer.send(b"!")
            while ends.connection.is_quiet():
                await checkpoint()
            assert ends.listening.told == []

    async def test_a_reset_that_look_finds(self) -> None:
        async with pair() as ends:
            ends.connection.receiver = None
            ends.connection._watch(WRITE)  # so that the reactor does not find it first
            ends.peer.reset()
            await ends.peer.stream.aclose()
            while ends.connection.is_quiet():
                await checkpoint()


class TestDefects:
    @pytest.mark.parametrize("way", ["event", "look"])
    async def test_a_defect_fails_this_receiver_only(
        self, way: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(data: bytes) -> None:
            raise ZeroDivisionError

        async with pair() as ends, pair() as others:
            ends.listening.feed = fail  # type: ignore[method-assign]
            connection = ends.connection
            if way == "look":
                connection._watch(READ | WRITE)
                connection._recv = always(b"data")
                connection.look()
            else:
                await ends.peer.send(b"data")
                await ends.listening.until_over()
            assert ends.listening.told == ["broken"]
            assert connection.closed
            (record,) = caplog.records
            assert record.name == "gprochat_anyio"
            assert record.exc_info is not None
            assert record.exc_info[0] is ZeroDivisionError
            assert record.exc_info[2] is not None
            await others.peer.send(b"data")
            await others.listening.until(b"data")

    @pytest.mark.parametrize("way", ["event", "look"])
    async def test_an_interrupt_fails_the_receiver_and_is_raised(
        self, way: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Otherwise the read data would be lost silently."""
        interrupt = KeyboardInterrupt()

        def fail(data: bytes) -> None:
            raise interrupt

        async with pair() as ends:
            ends.listening.feed = fail  # type: ignore[method-assign]
            ends.connection._recv = always(b"data")
            with pytest.raises(KeyboardInterrupt) as caught:
                if way == "look":
                    ends.connection.look()
                else:
                    ends.connection._on_ready(READ)
            assert caught.value is interrupt
            assert ends.listening.told == ["broken"]
            assert ends.connection.closed
            assert not caplog.records

    async def test_a_defect_of_an_idle_connection(self) -> None:
        def fail(_: object) -> None:
            raise ZeroDivisionError

        async with pair() as ends:
            ends.connection.receiver = None
            ends.connection.on_unsolicited = fail
            await ends.peer.send(b"!")
            while not ends.connection.closed:
                await checkpoint()
