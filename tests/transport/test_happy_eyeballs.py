"""Happy Eyeballs, in virtual time, with scripted attempts."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.loops import virtual

from gprochat_anyio.transport import _names
from gprochat_anyio.transport._names import ATTEMPT_DELAY, connect_first

Attempt = Callable[[], Awaitable[socket.socket]]


def scripting(patch: pytest.MonkeyPatch, *attempts: Attempt) -> list[Any]:
    """Make the n-th attempt behave like the n-th function. Return the addresses."""
    numbers = range(len(attempts))

    async def scripted(family: int, number: int) -> socket.socket:
        return await attempts[number]()

    patch.setattr(_names, "connect_to", scripted)
    return [(socket.AF_INET, number) for number in numbers]


class Scripted:
    """Attempts that last for a number of seconds, and the sockets that they made."""

    def __init__(self) -> None:
        self.made: list[socket.socket] = []
        self.began: list[float] = []

    def connects(self, after: float = 0) -> Attempt:
        async def attempt() -> socket.socket:
            self.began.append(anyio.current_time())
            await anyio.sleep(after)
            self.made.append(socket.socket())
            return self.made[-1]

        return attempt

    def fails(self, after: float = 0, number: int = errno.ECONNREFUSED) -> Attempt:
        async def attempt() -> socket.socket:
            self.began.append(anyio.current_time())
            await anyio.sleep(after)
            raise OSError(number, os.strerror(number))

        return attempt


@virtual
class TestHappyEyeballs:
    async def test_the_next_address_is_tried_after_a_delay(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        script = Scripted()
        addresses = scripting(monkeypatch, script.connects(9), script.connects(1), script.fails(9))
        began = anyio.current_time()
        connected = await connect_first(addresses)
        assert anyio.current_time() - began == pytest.approx(ATTEMPT_DELAY + 1)
        times = [at - began for at in script.began]
        assert times == pytest.approx([0, ATTEMPT_DELAY, 2 * ATTEMPT_DELAY])
        assert script.made == [connected]
        connected.close()

    async def test_the_next_address_is_tried_once_any_attempt_fails(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        script = Scripted()
        addresses = scripting(
            monkeypatch, script.fails(0.3), script.connects(9), script.fails(0), script.connects()
        )
        began = anyio.current_time()
        (await connect_first(addresses)).close()
        times = [at - began for at in script.began]
        assert times == pytest.approx([0, ATTEMPT_DELAY, 0.3, 0.3])

    async def test_a_failure_after_the_last_attempt_has_begun(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        script = Scripted()
        addresses = scripting(monkeypatch, script.connects(3), script.fails(2))
        began = anyio.current_time()
        (await connect_first(addresses)).close()
        assert anyio.current_time() - began == pytest.approx(3)

    async def test_each_reason_is_reported_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        script = Scripted()
        refused, unreachable = script.fails(), script.fails(1, errno.ENETUNREACH)
        addresses = scripting(monkeypatch, refused, unreachable, refused)
        with pytest.raises(OSError, match=r"^Connection refused; Network is unreachable$"):
            await connect_first(addresses)

    async def test_one_of_two_simultaneous_connections_is_closed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        script = Scripted()
        both = anyio.Event()

        async def first() -> socket.socket:
            await both.wait()
            return await late()

        async def second() -> socket.socket:
            both.set()
            return await late()

        async def late() -> socket.socket:
            """Connect in spite of the cancellation by the other attempt."""
            with anyio.CancelScope(shield=True):
                await checkpoint()
            script.made.append(socket.socket())
            return script.made[-1]

        connected = await connect_first(scripting(monkeypatch, first, second))
        assert len(script.made) == 2
        (other,) = {*script.made} - {connected}
        assert other.fileno() < 0 <= connected.fileno()
        connected.close()

    async def test_an_exception_of_an_attempt_is_not_wrapped(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Interrupt(BaseException):
            """An exception like Ctrl-C, which would end asyncio's event loop."""

        script = Scripted()

        async def interrupted() -> socket.socket:
            await anyio.sleep(1)
            raise Interrupt

        with pytest.raises(Interrupt):
            await connect_first(scripting(monkeypatch, interrupted, script.connects(9)))
        assert not script.made

    async def test_an_interrupt_closes_connected_sockets(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Interrupt(BaseException):
            pass

        script = Scripted()

        async def interrupted() -> socket.socket:
            try:
                await anyio.sleep_forever()
            finally:
                raise Interrupt

        with pytest.raises(Interrupt):
            await connect_first(scripting(monkeypatch, interrupted, script.connects()))
        assert [made.fileno() for made in script.made] == [-1]
