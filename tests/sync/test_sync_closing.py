"""The end of a stream and of a SyncClient: leaving, closing, and the garbage collector."""

from __future__ import annotations

import gc
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
from support.exceptions import BoomError
from support.garbage import without_garbage_collector
from support.http_libraries import httpx
from support.raw_site import BOUND
from support.sync_clients import loop_threads
from support.sync_site import Serving, Site

from gprochat_anyio import SyncClient

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def test_leaving_the_block_closes_the_connection(client: SyncClient, serving: Serving) -> None:
    with client.stream("endless") as chunks:
        for _ in chunks:
            break
    assert serving.was_left()
    with pytest.raises(BoomError) as caught, client.stream("endless"):
        raise BoomError
    assert caught.value.__context__ is None
    assert serving.was_left()
    with pytest.raises(anyio.ClosedResourceError):
        next(iter(chunks))
    with pytest.raises(RuntimeError, match="entered once"), chunks:
        raise AssertionError
    chunks.close()


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="requires reference counts")
def test_leaving_a_plain_loop_closes_the_connection(client: SyncClient, serving: Serving) -> None:
    with without_garbage_collector():
        chunks = client.stream("endless")
        for _ in chunks:
            break
        assert serving.was_left()
        with pytest.raises(BoomError):
            for _ in client.stream("endless"):
                raise BoomError
        assert serving.was_left()

        def first() -> str:
            for piece in client.stream("endless"):
                return piece
            raise AssertionError

        assert first() == "one "
        assert serving.was_left()


def test_close(site: Site, serving: Serving) -> None:
    client = SyncClient(site.url)
    client.ask("hi")
    with ThreadPoolExecutor(3) as pool:
        asking = pool.submit(client.ask, "endless")
        assert serving.asked.acquire(timeout=BOUND)
        stream = client.stream("hi")
        stream.__enter__()
        closing = [pool.submit(client.close) for _ in range(2)]
        with pytest.raises(RuntimeError, match="SyncClient is closed; create a new one") as caught:
            asking.result(BOUND)
        assert caught.value.__cause__ is None
        for future in closing:
            future.result(BOUND)
    assert loop_threads() == []
    assert serving.was_left()
    client.close()
    stream.close()
    for use in (lambda: client.ask("hi"), client.check_password, lambda: list(stream)):
        with pytest.raises(RuntimeError, match="SyncClient is closed; create a new one"):
            use()
    with pytest.raises(RuntimeError, match="SyncClient is closed"), client.stream("hi"):
        raise AssertionError


def test_close_cuts_off_a_stream(site: Site, serving: Serving) -> None:
    with SyncClient(site.url) as client, client.stream("endless") as chunks:
        assert next(iter(chunks)) == "one "
        client.close()
        assert serving.was_left()
        assert chunks.text == "one "
        with pytest.raises(RuntimeError, match="SyncClient is closed"):
            next(iter(chunks))


def test_an_unused_client_closes_its_transport() -> None:
    class Transport(httpx.AsyncBaseTransport):
        closed = False

        async def aclose(self) -> None:
            self.closed = True

    transport = Transport()
    with SyncClient("http://site.test", transport=transport):
        assert loop_threads() == []
    assert transport.closed


def test_abandoned_to_the_garbage_collector(site: Site) -> None:
    client = SyncClient(site.url)
    client.ask("hi")
    (thread,) = loop_threads()
    forgotten = [client]
    del client
    with pytest.warns(ResourceWarning, match="a SyncClient was not closed"):
        forgotten.clear()
    thread.join(BOUND)
    assert not thread.is_alive()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unused = SyncClient(site.url)
        del unused
        gc.collect()


def test_a_stream_keeps_its_client(site: Site) -> None:
    with pytest.warns(ResourceWarning, match="a SyncClient was not closed"):
        assert SyncClient(site.url).stream("hi").read() == "HI"
    for thread in loop_threads():
        thread.join(BOUND)


def test_garbage_in_the_loops_own_thread(client: SyncClient, serving: Serving) -> None:
    """The garbage collector may run in any thread, including one that must not wait."""
    pieces = iter(client.stream("endless"))
    next(pieces)
    held = [pieces]
    del pieces

    async def collect() -> None:
        held.clear()

    client._loop.run(collect)
    assert serving.was_left()

    async def use() -> None:
        for method in (lambda: client.ask("hi"), client.close):
            with pytest.raises(RuntimeError, match="in its own event loop's thread"):
                method()

    client._loop.run(use)
