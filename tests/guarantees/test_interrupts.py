"""Ctrl-C, SystemExit and the caller's own exceptions are never wrapped, wherever they are
raised."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from typing import Any

import anyio
import pytest
from support.deaf_site import deaf_site_in_memory
from support.faults import WAYS, receive_by
from support.loops import LOOPS, VIRTUAL_LOOPS, virtual_backend
from support.prompted import pool_of
from support.raw_site import BOUND, HEAD, Exchange, raw_site

from gprochat_anyio import Client, Retry, Timeouts, UnexpectedResponseError
from gprochat_anyio._request.deadlines import Deadlines
from gprochat_anyio._wire.reply_decoder import TextDecoder
from gprochat_anyio.testing import Hang, Pause, Say, scripted_site
from gprochat_anyio.transport import _connecting, _names
from gprochat_anyio.transport._asyncio_loop import AsyncioSignal
from gprochat_anyio.transport._names import Address
from gprochat_anyio.transport._pumped_connection import PumpedConnection
from gprochat_anyio.transport._trio_loop import TrioSignal

MANY_READS = [Say("a"), Pause(1)] * 9
LARGE = "x" * 300_000  # still being sent when the response is read


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    """Raise KeyboardInterrupt at SIGINT, whatever handler this process has."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class _BoomError(Exception):
    pass


EXCEPTIONS = [KeyboardInterrupt, SystemExit, _BoomError]


def raising(error: BaseException) -> Callable[..., Awaitable[Any]]:
    async def interrupted(*_: Any, **__: Any) -> None:
        await anyio.lowlevel.checkpoint()
        raise error

    return interrupted


def run(loop: Any, main: Callable[[], Awaitable[object]]) -> BaseException:
    """Run the function, and return the exception that leaves `anyio.run`."""
    backend, options = virtual_backend(loop)
    with pytest.raises(BaseException) as caught:
        anyio.run(main, backend=backend, backend_options=options)
    return caught.value


loops = pytest.mark.parametrize("loop", [param.values[0] for param in VIRTUAL_LOOPS])
exceptions = pytest.mark.parametrize("kind", EXCEPTIONS)


async def two_addresses(host: str, port: int) -> list[Address]:
    """Resolve a name to two addresses, so that connecting uses a task group."""
    return [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port))]


Patch = tuple[Any, str, Any]


def places(error: BaseException) -> dict[str, list[Patch]]:
    """Return the functions to patch so that the exception is raised in each phase."""
    raises = raising(error)
    signals = [(AsyncioSignal, "wait", raises), (TrioSignal, "wait", raises)]
    return {
        "looking up the name": [(_connecting, "resolve", raises)],
        "connecting, in a task": [
            (_connecting, "resolve", two_addresses),
            (_names, "connect_to", raises),
        ],
        "sending": [(PumpedConnection, "send", raises)],
        "sending at length": [*signals],
        "waiting for the first text": [*signals],
    }


@loops
@exceptions
@pytest.mark.parametrize("place", places(_BoomError()))
@pytest.mark.parametrize("way", WAYS)
def test_while_opening(
    monkeypatch: pytest.MonkeyPatch,
    loop: Any,
    kind: type[BaseException],
    place: str,
    way: str,
) -> None:
    error = kind()

    async def fail(client: Client, prompt: str) -> None:
        with monkeypatch.context() as patch:
            for owner, name, value in places(error)[place]:
                patch.setattr(owner, name, value)
            try:
                await receive_by(way, client, prompt)
            except BaseException as left:  # noqa: BLE001 - any exception
                failures.append(left)
                raise _Left from None

    async def main() -> None:
        if place == "sending at length":
            async with deaf_site_in_memory(monkeypatch, [Hang()]) as deaf:
                async with Client(deaf.url) as client:
                    try:
                        await fail(client, LARGE)
                    except _Left:
                        assert pool_of(client).statistics().available == 1000
                        left_alone.append(True)
            return
        async with scripted_site("a") as site:
            url = "http://site.test" if "connect" in place or "name" in place else site.url
            async with Client(url) as client:
                try:
                    await fail(client, "hello")
                finally:
                    assert pool_of(client).statistics().available == 1000
        pytest.fail("nothing was raised")

    failures: list[BaseException] = []
    left_alone: list[bool] = []
    if place == "sending at length":  # the site's task group would wrap the exception
        backend, options = virtual_backend(loop)
        anyio.run(main, backend=backend, backend_options=options)
        assert left_alone
        assert failures == [error]
        return
    left = run(loop, main)
    # asyncio stops the loop immediately if Ctrl-C interrupts one of its tasks
    assert failures == [error] or left is error


class _Left(BaseException):
    pass


@loops
@exceptions
@pytest.mark.parametrize("when", ["stage", "signing"])
def test_in_a_callback(
    monkeypatch: pytest.MonkeyPatch, loop: Any, kind: type[BaseException], when: str
) -> None:
    error = kind()

    def interrupted(*_: Any, **__: Any) -> None:
        raise error

    async def main() -> None:
        async with scripted_site("a") as site, site.client(max_connections=1) as client:
            with monkeypatch.context() as patch:
                if when == "stage":
                    patch.setattr(Deadlines, "start", interrupted)
                else:
                    patch.setattr("gprochat_anyio._wire.gprochat_wire.encode_generate", interrupted)
                with pytest.raises(kind) as caught:
                    await client.ask("hello")
                assert caught.value is error
                assert error.__cause__ is None
            assert (await client.ask("hello")).text == "a"

    backend, options = virtual_backend(loop)
    anyio.run(main, backend=backend, backend_options=options)


@loops
@exceptions
@pytest.mark.parametrize("reads", [0, 1, 2, 3, 5, 9])
def test_in_the_block(loop: Any, kind: type[BaseException], reads: int) -> None:
    error = kind()

    async def main() -> None:
        async with scripted_site(MANY_READS) as site, site.client() as client:
            with pytest.raises(kind) as caught:
                async with client.stream("hello") as chunks:
                    for _ in range(reads):
                        await chunks.receive()
                    raise error
            assert caught.value is error
            assert (error.__cause__, error.__context__) == (None, None)
            assert not site.open_connections

    backend, options = virtual_backend(loop)
    anyio.run(main, backend=backend, backend_options=options)


@pytest.mark.parametrize("loop", [param.values[0] for param in LOOPS])
@pytest.mark.parametrize("way", WAYS)
def test_ctrl_c_while_the_reactor_reads(
    monkeypatch: pytest.MonkeyPatch, loop: Any, way: str
) -> None:
    """It reaches the caller, not the reactor, and the connection is closed."""
    feed = TextDecoder.feed
    pieces: list[str] = []

    def interrupted(self: TextDecoder, data: bytes) -> str:
        if b"two" in data:
            signal.raise_signal(signal.SIGINT)
        return feed(self, data)

    def answer(exchange: Exchange) -> None:
        exchange.send(HEAD)
        exchange.text("one")
        exchange.text("two")
        exchange.until_left()
        left.append("closed")

    async def main(url: str) -> None:
        async with Client(url, trust_env=False) as client:
            await receive_by(way, client, into=pieces)

    left: list[str] = []
    monkeypatch.setattr(TextDecoder, "feed", interrupted)
    backend, options = virtual_backend(loop)
    with raw_site(answer) as site:
        with pytest.raises(KeyboardInterrupt) as caught:
            anyio.run(main, site.url, backend=backend, backend_options=options)
        assert type(caught.value) is KeyboardInterrupt
    assert left == ["closed"]
    assert "onetwo".startswith("".join(pieces))


@pytest.mark.parametrize("loop", [param.values[0] for param in LOOPS if "trio" not in param.id])
@pytest.mark.parametrize("way", WAYS)
def test_an_interrupt_in_the_reactor(monkeypatch: pytest.MonkeyPatch, loop: Any, way: str) -> None:
    """An event loop that does not handle SIGINT raises it in a callback.

    The interrupted read is lost, so the reply must not continue as if it were complete.
    """
    feed = TextDecoder.feed
    pieces: list[str] = []
    left: list[str] = []
    first = threading.Event()

    def interrupted(self: TextDecoder, data: bytes) -> str:
        if b"two" in data:
            raise KeyboardInterrupt
        first.set()
        return feed(self, data)

    def answer(exchange: Exchange) -> None:
        exchange.send(HEAD)
        exchange.text("one")
        assert first.wait(BOUND)  # so that it is read separately
        exchange.text("two", "three")
        exchange.until_left()
        left.append("closed")

    async def main(url: str) -> None:
        settings: Any = {"retry": Retry(attempts=1), "timeouts": Timeouts(total=BOUND)}
        async with Client(url, trust_env=False, **settings) as client:
            try:
                await receive_by(way, client, into=pieces)
            finally:
                assert way == "provider" or pool_of(client).statistics().available == 1000

    monkeypatch.setattr(TextDecoder, "feed", interrupted)
    _, options = virtual_backend(loop)
    running = options.get("loop_factory", asyncio.new_event_loop)()
    with closing(running), raw_site(answer) as site:
        task = running.create_task(main(site.url))
        with pytest.raises(KeyboardInterrupt):
            running.run_until_complete(task)
        with pytest.raises(UnexpectedResponseError):
            running.run_until_complete(task)
        running.run_until_complete(running.shutdown_asyncgens())
    assert left == ["closed"]
    assert "".join(pieces) == ("" if way == "ask" else "one")
