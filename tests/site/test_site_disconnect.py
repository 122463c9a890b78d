"""A client that disconnects cancels the model; over real connections."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator

import anyio
import pytest
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSStream
from support.blocked import all_tasks_blocked
from support.servers import client_context, server_context
from support.site_wire import Wire, ask, connected, limit, serving, signed

from gprochat_anyio.site import Turn


class Scripted:
    """A model that yields `before`, then waits forever, with events for its start and end."""

    def __init__(self, *before: str) -> None:
        self.started = anyio.Event()
        self.stopped = anyio.Event()
        self._before = before

    async def __call__(self, turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        try:
            for text in self._before:
                yield text
            self.started.set()
            await anyio.sleep_forever()
        finally:
            self.stopped.set()


def reset(wire: Wire) -> None:
    """Turn the close of the connection into a reset."""
    raw = wire.stream.extra(SocketAttribute.raw_socket)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.mark.parametrize("resetting", [False, True])
@pytest.mark.parametrize("before", [[], [""], ["some", "text"]])
async def test_a_client_that_disconnects(
    before: list[str], resetting: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    model = Scripted(*before)
    async with serving(model) as port:
        async with connected(port) as wire:
            await wire.send(signed())
            await model.started.wait()
            if resetting:
                reset(wire)
        with anyio.fail_after(5):
            await model.stopped.wait()
        assert (await ask(port, b"[]")).status == 400
    assert caplog.text == ""


class Endless:
    """A model that never ends, with an event for its cancellation."""

    def __init__(self) -> None:
        self.stopped = anyio.Event()

    async def __call__(self, turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        try:
            while True:
                yield "x" * 100_000
        finally:
            self.stopped.set()


async def test_a_client_that_disconnects_with_a_full_buffer() -> None:
    model = Endless()
    async with serving(model) as port:
        async with connected(port) as wire:
            await wire.send(signed())
            await wire.read_head()
            await all_tasks_blocked()
        with anyio.fail_after(5):
            await model.stopped.wait()


class TestAClientThatStopsReading:
    """Such a client must not keep its connection, or the model, open."""

    @pytest.fixture(autouse=True)
    def _quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        limit(monkeypatch, unread_seconds=0.2)

    async def test_in_the_middle_of_a_reply(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING)
        model = Endless()
        async with serving(model) as port, connected(port) as wire:
            await wire.send(signed())
            await model.stopped.wait()
            assert (await ask(port, b"[]")).status == 400
            left = await wire.read_to_close()
            assert not left.endswith(b"0\r\n\r\n")
        assert caplog.text == ""

    async def test_under_tls(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING)
        model = Endless()
        async with serving(model, ssl_context=server_context()) as port, connected(port) as wire:
            async with await TLSStream.wrap(
                wire.stream,
                hostname="localhost",
                ssl_context=client_context(),
                standard_compatible=False,
            ) as tls:
                await Wire(tls).send(signed())
                await model.stopped.wait()
        assert caplog.text == ""


async def test_a_client_that_disconnects_within_its_body(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as port:
        for part in (
            b"",
            b"POST /api/gen",
            b"POST /api/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{",
        ):
            async with connected(port) as wire:
                await wire.stream.send(part)
        assert (await ask(port, b"[]")).status == 400
    assert caplog.text == ""
