"""`serve`: addresses, startup and shutdown."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream
from starlette.applications import Starlette
from support.blocked import all_tasks_blocked
from support.site_wire import Wire, ask, connected, serving, signed

from gprochat_anyio._request import model_texts as texts
from gprochat_anyio.site import Turn, create_app, serve


async def waiting(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
    yield "so far"
    await anyio.sleep_forever()


async def silent(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
    await anyio.sleep_forever()
    yield ""


async def flooding(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
    while True:
        yield "x" * 1_000_000


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


async def test_the_url_is_known_once_connections_are_accepted() -> None:
    async with anyio.create_task_group() as tg:
        url: str = await tg.start(serve)
        host, _, port = url.removeprefix("http://").rpartition(":")
        assert host == "127.0.0.1"
        assert (await ask(int(port), signed())).status == 200
        tg.cancel_scope.cancel()


async def test_an_app_or_a_model_or_nothing() -> None:
    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        yield "mine"

    async with serving() as port:
        assert (await ask(port, signed())).body.startswith(b"This is the embedded site")
    async with serving(model, secret_key="k") as port:
        assert (await ask(port, signed(secret_key="k"))).body == b"mine"
    async with serving(create_app(model, secret_key="k")) as port:
        assert (await ask(port, signed(secret_key="k"))).body == b"mine"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
async def test_loopback_needs_no_password(host: str) -> None:
    async with anyio.create_task_group() as tg:
        url: str = await tg.start(partial(serve, host=host))
        assert url.startswith(("http://127.0.0.", "http://[::1]:"))
        tg.cancel_scope.cancel()


@pytest.mark.parametrize("app", [None, create_app(), Starlette()])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104
async def test_other_addresses_need_a_password(host: str, app: Any) -> None:
    with pytest.raises(ValueError, match="give passwords, or listen on"):
        await serve(app, host=host)


async def test_all_addresses_with_a_password() -> None:
    for options in ({"passwords": ["p"]}, {"app_or_model": create_app(passwords=["p"])}):
        async with serving(host="0.0.0.0", **options) as port:  # noqa: S104
            assert (await ask(port, signed(pass_="p"))).status == 200


@pytest.mark.parametrize("options", [{"secret_key": "k"}, {"passwords": ["p"]}])
async def test_an_app_has_its_own_secrets(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give them to create_app"):
        await serve(create_app(), **options)


async def test_an_address_in_use() -> None:
    async with serving() as port:
        before = descriptors()
        with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
            await serve(port=port)
        assert descriptors() == before


async def test_a_port_can_be_reused_immediately() -> None:
    async with serving() as port:
        assert (await ask(port, signed())).status == 200
    async with serving(port=port) as again:
        assert again == port
        assert (await ask(port, signed())).status == 200


@pytest.mark.parametrize("model", [silent, waiting, flooding])
async def test_cancellation_closes_every_connection(
    model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    body = signed()
    streams: list[SocketStream] = []
    whole = (
        b"POST /api/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(body)
        + body
    )
    async with serving() as port, connected(port):  # the loop opens descriptors of its own
        pass
    before = descriptors()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            url: str = await tg.start(serve, model)
            port = int(url.rpartition(":")[2])
            streams += [await anyio.connect_tcp("127.0.0.1", port) for _ in range(5)]
            # Idle, half a head, half a body, a whole request, and a finished exchange.
            sent = [b"\r\n", whole[:20], whole[:-1], whole, whole.replace(b"{", b"[")]
            for stream, data in zip(streams, sent, strict=True):
                await stream.send(data)
            assert (await Wire(streams[-1]).read()).status == 500
            await all_tasks_blocked()
            tg.cancel_scope.cancel()
    with anyio.fail_after(5):
        for stream in streams:
            wire = Wire(stream)
            assert not (await wire.read_to_close()).endswith(b"0\r\n\r\n")
            await stream.aclose()
        with pytest.raises(OSError, match="connection"):
            await anyio.connect_tcp("127.0.0.1", port)
    assert descriptors() == before
    assert caplog.text == ""


async def test_a_model_that_resists_is_abandoned_after_the_grace_period(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(texts, "CLOSING_SECONDS", 0.01)
    resisted = False

    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        nonlocal resisted
        try:
            yield "so far"
            await anyio.sleep_forever()
        finally:
            resisted = True
            with anyio.move_on_after(0.05, shield=True):
                await anyio.sleep_forever()

    async with serving(model) as port, connected(port) as wire:
        await wire.send(signed())
        await wire.read_head()
        await wire.read_chunk()
    assert resisted


async def test_cancellation_before_startup() -> None:
    starting = anyio.Event()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        starting.set()
        await anyio.sleep_forever()
        yield

    before = descriptors()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            tg.start_soon(serve, Starlette(lifespan=lifespan))
            await starting.wait()
            tg.cancel_scope.cancel()
    assert descriptors() == before


async def test_the_app_s_lifespan() -> None:
    told = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        told.append("up")
        yield
        await anyio.lowlevel.checkpoint()
        told.append("down")

    async with serving(Starlette(lifespan=lifespan)):
        assert told == ["up"]
    assert told == ["up", "down"]


async def test_an_app_that_fails_to_start(caplog: pytest.LogCaptureFixture) -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        raise RuntimeError("no disk")
        yield

    before = descriptors()
    with pytest.raises(Exception, match="startup") as raised:
        await serve(Starlette(lifespan=lifespan))
    assert not isinstance(raised.value, ExceptionGroup)
    assert descriptors() == before


def test_cancelling_its_task_on_asyncio() -> None:
    async def main() -> None:
        task = asyncio.create_task(serve(flooding, port=port))
        await asyncio.sleep(0)
        with anyio.fail_after(5):
            while True:
                try:
                    stream = await anyio.connect_tcp("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0)
                else:
                    break
            async with stream:
                wire = Wire(stream)
                await wire.send(signed())
                await wire.read_head()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    before = descriptors()
    asyncio.run(main())
    assert descriptors() == before


@pytest.mark.parametrize("missing", ["starlette", "h11"])
def test_without_the_extra(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("gprochat_anyio.site")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'gprochat-anyio\[site\]'"):
        importlib.import_module("gprochat_anyio.site")


def test_another_missing_module(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("gprochat_anyio.site")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ipaddress", None)
    with pytest.raises(ModuleNotFoundError, match="ipaddress"):
        importlib.import_module("gprochat_anyio.site")


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="the site's own end is found among these")
async def test_texts_are_sent_immediately() -> None:
    """Nagle's algorithm would delay all but the first until the client acknowledges the previous
    text, which can take 40 ms."""
    async with serving(waiting) as port, connected(port) as wire:
        await wire.send(signed())
        await wire.read_head()
        assert delays_of(port) == {wire.stream.extra(SocketAttribute.local_port): False}


def delays_of(port: int) -> dict[int, bool]:
    """Return a flag for each connection from this port, by its other port: True if delayed."""
    found = {}
    for entry in Path("/dev/fd").iterdir():
        with suppress(OSError), socket.socket(fileno=os.dup(int(entry.name))) as sock:
            if sock.getsockname()[1:2] == (port,):
                at_once = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                found[sock.getpeername()[1]] = not at_once
    return found
