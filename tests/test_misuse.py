"""Misuse is loud: an error or a warning that says what to do, and never a hang."""

from __future__ import annotations

import gc
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
from prompted import pool_of
from scripted import reply
from transport.servers import Handler, Peer, client_context, repeating, server_context, serving

from gprochat_anyio import Client, fan_out, race
from gprochat_anyio.testing import Hang, Say, live_site
from gprochat_anyio.testing._steps import REPLY_HEAD

OPEN_ENDED = [Say("one"), Hang()]


async def open_ended(peer: Peer) -> None:
    """What `OPEN_ENDED` does, where it may be below TLS."""
    await peer.request()
    await peer.send(REPLY_HEAD + Say("one").data)
    await peer.until_closed()


@asynccontextmanager
async def client_settings(handler: Handler, *, secure: bool) -> AsyncIterator[dict[str, Any]]:
    """What leads a client to such a peer, by TLS or not."""
    async with serving(handler, tls=server_context() if secure else None) as site:
        yield {"url": site.url, "ssl_context": client_context() if secure else None}


@contextmanager
def warned_of(text: str) -> Iterator[None]:
    """A ResourceWarning of the library's own. Sockets add theirs, where they are dropped too."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [w for w in caught if w.category is ResourceWarning and text in str(w.message)]


def elsewhere(backend: str, use: Callable[[], Any]) -> str:
    """What a use in another thread's event loop says."""
    try:
        anyio.run(use, backend=backend)
    except RuntimeError as error:
        return str(error)
    return ""


async def forked(use: Callable[[], Any], backend: str) -> str:
    """What a use in a child of a fork says. It has a second, and no event loop of the parent's."""
    told, tell = os.pipe()

    def child_of() -> int:
        with warnings.catch_warnings():
            # Of other threads, and of a loop of the parent's that has the signals.
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
    os.waitpid(pid, 0)  # noqa: ASYNC222 - it has told all, and ends
    return said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
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
                assert "make a new Client in the child" in said
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
                assert "another event loop; make a Client for each loop" in said, name


async def test_stopped_from_another_thread() -> None:
    async with live_site(OPEN_ENDED) as site, site.client() as client:
        async with client.stream("hi") as chunks:
            with pytest.raises(RuntimeError, match=r"by anyio\.from_thread, or use a SyncClient"):
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
        await client.aclose()  # a second time is nothing
        send, receive = anyio.create_memory_object_stream[str](1)
        receive.close()
        for use in (
            partial(client.stream_to, "hi", send),
            client.stream("hi").__aenter__,
            race([client], "hi").__aenter__,
        ):
            with pytest.raises(RuntimeError, match="this Client is closed; make a new one"):
                await use()
        with pytest.raises(RuntimeError, match="this Client is closed; make a new one"):
            async with fan_out(client, ["hi"]) as events:
                async for _ in events:
                    pass


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
        for _ in range(5):  # the event loop closes it, in one of its next turns
            await checkpoint()
        assert pool_of(client).statistics().available == 1000  # and it is closed


@pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")  # the channel's own
async def test_a_stream_that_is_dropped_by_another_thread() -> None:
    async with live_site(OPEN_ENDED) as site, site.client() as client:
        kept = [client.stream("hi")]
        await kept[0].__aenter__()
        with warned_of("use `async with client.stream(...)`"):
            await anyio.to_thread.run_sync(kept.clear)
        with anyio.fail_after(10):
            await site.until(lambda: not site.open_connections)


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # theirs comes besides
@pytest.mark.parametrize("secure", [False, True])
async def test_a_client_that_is_dropped_with_connections_open(secure: bool) -> None:
    async with client_settings(repeating(reply("a")), secure=secure) as settings:
        client = Client(**settings)
        assert (await client.ask("hi")).text == "a"
        with warned_of("use `async with Client(...)`, or `await client.aclose()`"):
            del client


async def test_a_client_that_never_connected_is_dropped_in_silence() -> None:
    client = Client("http://127.0.0.1:1")
    del client
    gc.collect()
