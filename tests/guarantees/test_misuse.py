"""Misuse raises an error, or a warning with advice, and never hangs."""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint
from support.log_events import LOGGER, failing_at
from support.prompted import closed, pool_of
from support.raw_site import HEAD, Exchange, raw_site
from support.response_bytes import REPLY_HEAD
from support.scripted import reply
from support.servers import Handler, Peer, client_context, repeating, server_context, serving

from gprochat_anyio import Client, fan_out, race
from gprochat_anyio.testing import Hang, Say, live_site

OPEN_ENDED = [Say("one"), Hang()]


async def open_ended(peer: Peer) -> None:
    """Behave like the script `OPEN_ENDED`, also over TLS."""
    await peer.request()
    await peer.send(REPLY_HEAD + Say("one").data)
    await peer.until_closed()


def open_until_left(exchange: Exchange) -> None:
    """Behave like the script `OPEN_ENDED`, for a client of another event loop."""
    exchange.send(HEAD)
    exchange.text("one")
    exchange.until_left()


@asynccontextmanager
async def client_settings(handler: Handler, *, secure: bool) -> AsyncIterator[dict[str, Any]]:
    """Yield the settings of a client of such a peer, with TLS or without."""
    async with serving(handler, tls=server_context() if secure else None) as site:
        yield {"url": site.url, "ssl_context": client_context() if secure else None}


@contextmanager
def warned_of(text: str) -> Iterator[None]:
    """Expect a ResourceWarning of the library's own. Dropped sockets may add theirs."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [w for w in caught if w.category is ResourceWarning and text in str(w.message)]


def elsewhere(backend: str, use: Callable[[], Any]) -> str:
    """Return the error message of a use in another thread's event loop."""
    try:
        anyio.run(use, backend=backend)
    except RuntimeError as error:
        return str(error)
    return ""


async def forked(use: Callable[[], Any], backend: str) -> str:
    """Return the error message of a use in a forked child, which must end within 10 seconds."""
    told, tell = os.pipe()

    def child_of() -> int:
        with warnings.catch_warnings():
            # About other threads, and about the parent's event loop, which owns the signal
            # handlers.
            warnings.simplefilter("ignore")
            pid = os.fork()
            if not pid:
                try:
                    os.write(tell, elsewhere(backend, use).encode() or b"nothing")
                finally:
                    os._exit(0)
        return pid

    pid = await anyio.to_thread.run_sync(child_of)
    os.close(tell)
    with os.fdopen(told, "rb") as reading:
        with anyio.fail_after(10):
            await anyio.wait_readable(reading)
        said = reading.read().decode()
    os.waitpid(pid, 0)  # noqa: ASYNC222 - it has written its message and exits
    return said


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="requires os.fork")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_in_the_child_of_a_fork(backend: str) -> None:
    async with live_site(OPEN_ENDED) as site, site.client() as client:
        async with client.stream("hi") as chunks:
            for use in (
                partial(client.ask, "hi"),
                client.check_password,
                client.__aenter__,
                client.aclose,
                chunks.receive,
            ):
                said = await forked(use, backend)
                assert "before the process forked" in said
                assert "create a new Client in the child" in said
            assert await chunks.receive() == "one"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_in_another_event_loop(backend: str) -> None:
    async with live_site(OPEN_ENDED) as site, site.client() as client:
        async with client.stream("hi"):
            send, receive = anyio.create_memory_object_stream[str](1)
            receive.close()
            uses: dict[str, Callable[[], Any]] = {
                "stream": client.stream("hi").__aenter__,
                "stream_to": partial(client.stream_to, "hi", send),
                "check_password": client.check_password,
                "enter": client.__aenter__,
                "close": client.aclose,
                "race": race([client], "hi").__aenter__,
            }
            for name, use in uses.items():
                said = await anyio.to_thread.run_sync(elsewhere, backend, use)
                assert "another event loop; create a Client for each loop" in said, name


async def test_stopped_from_another_thread() -> None:
    async with live_site(OPEN_ENDED) as site, site.client() as client:
        async with client.stream("hi") as chunks:
            with pytest.raises(RuntimeError, match=r"use anyio\.from_thread, or a SyncClient"):
                await anyio.to_thread.run_sync(chunks.stop)
            assert await chunks.receive() == "one"


async def test_after_its_block() -> None:
    async with live_site([Say("a"), Say("b")]) as site, site.client() as client:
        async with client.stream("hi") as chunks:
            assert await chunks.read() == "ab"
        for use in (chunks.receive, chunks.read, partial(anext, aiter(chunks))):
            with pytest.raises(anyio.ClosedResourceError, match="closed; its text is kept"):
                await use()
        assert chunks.text == "ab"
        with pytest.raises(RuntimeError, match=r"call client\.stream\(\) for another"):
            await chunks.__aenter__()


async def test_a_closed_client() -> None:
    async with live_site(OPEN_ENDED) as site:
        async with site.client() as client:
            pass
        await client.aclose()  # closing again has no effect
        send, receive = anyio.create_memory_object_stream[str](1)
        receive.close()
        for use in (
            partial(client.stream_to, "hi", send),
            client.stream("hi").__aenter__,
            race([client], "hi").__aenter__,
        ):
            with pytest.raises(RuntimeError, match="this Client is closed; create a new one"):
                await use()
        with pytest.raises(RuntimeError, match="this Client is closed; create a new one"):
            async with fan_out(client, ["hi"]) as events:
                async for _ in events:
                    pass


@pytest.mark.slow
@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("reads", [0, 1])
async def test_a_stream_that_is_dropped_within_its_block(reads: int, secure: bool) -> None:
    async with (
        client_settings(open_ended, secure=secure) as settings,
        Client(**settings) as client,
    ):
        chunks = client.stream("hi")
        await chunks.__aenter__()
        for _ in range(reads):
            await chunks.receive()
        with warned_of("use `async with client.stream(...)`"):
            del chunks
        for _ in range(5):  # the event loop closes it in one of its next turns
            await checkpoint()
        assert pool_of(client).statistics().available == 1000  # and it is closed


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")  # the channel's own
async def test_a_stream_that_is_dropped_by_another_thread() -> None:
    async with live_site(OPEN_ENDED) as site, site.client() as client:
        kept = [client.stream("hi")]
        await kept[0].__aenter__()
        with warned_of("use `async with client.stream(...)`"):
            await anyio.to_thread.run_sync(kept.clear)
        with anyio.fail_after(10):
            await site.until(lambda: not site.open_connections)


@pytest.mark.slow
async def test_a_dropped_stream_is_closed_even_if_its_observer_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    with failing_at("request.left"):
        async with live_site(OPEN_ENDED) as site, site.client() as client:
            chunks = client.stream("hi")
            await chunks.__aenter__()
            with warned_of("use `async with client.stream(...)`"):
                del chunks
            await closed(site)
    assert caplog.messages[-1] == "an observer failed when a dropped ReplyStream ended"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_stream_that_is_dropped_after_its_loop_has_ended(backend: str) -> None:
    kept = []

    async def leave_open(client: Client) -> None:
        kept.append(client.stream("hi"))
        await kept[0].__aenter__()

    with raw_site(open_until_left) as site:  # whose thread ends when the connection is closed
        anyio.run(leave_open, Client(site.url, trust_env=False), backend=backend)
        with warned_of("use `async with client.stream(...)`"):
            kept.clear()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # the sockets' own
@pytest.mark.parametrize("secure", [False, True])
async def test_a_client_that_is_dropped_with_connections_open(secure: bool) -> None:
    async with client_settings(repeating(reply("a")), secure=secure) as settings:
        client = Client(**settings)
        assert (await client.ask("hi")).text == "a"
        with warned_of("use `async with Client(...)`, or `await client.aclose()`"):
            del client


@pytest.mark.slow
async def test_a_client_that_never_connected_does_not_warn() -> None:
    client = Client("http://127.0.0.1:1")
    del client
    gc.collect()
