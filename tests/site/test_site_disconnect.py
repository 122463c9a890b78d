"""A client that leaves stops the model, on the wire."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import AsyncIterator

import anyio
import pytest
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSStream
from site_wire import Wire, ask, connected, serving, signed
from transport.servers import client_context, server_context

from gprochat_anyio.site import Turn, _serving


class Scripted:
    """A model that says `before`, then waits for ever, and tells when it starts and stops."""

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
    """Make the coming close of the connection a reset."""
    raw = wire.stream.extra(SocketAttribute.raw_socket)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.mark.parametrize("resetting", [False, True])
@pytest.mark.parametrize("before", [[], [""], ["some", "text"]])
async def test_a_client_that_leaves(
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
    """A model that never ends, and tells when it stops."""

    def __init__(self) -> None:
        self.stopped = anyio.Event()

    async def __call__(self, turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        try:
            while True:
                yield "x" * 100_000
        finally:
            self.stopped.set()


async def test_a_client_that_leaves_a_full_pipe() -> None:
    model = Endless()
    async with serving(model) as port:
        async with connected(port) as wire:
            await wire.send(signed())
            await wire.read_head()
            await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(5):
            await model.stopped.wait()


class TestAClientThatStopsReading:
    """It would hold its connection, and the model's, for as long as it likes."""

    pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the clock")

    @pytest.fixture(autouse=True)
    def _quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_serving, "UNREAD_SECONDS", 0.2)

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


async def test_a_client_that_leaves_its_body_unfinished(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as port:
        for part in (
            b"",
            b"POST /api/gen",
            b"POST /api/generate HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{",
        ):
            async with connected(port) as wire:
                await wire.stream.send(part)
        assert (await ask(port, b"[]")).status == 400
    assert caplog.text == ""
