"""The threads of a SyncClient: those that call it, and the one of its event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.exceptions import BoomError
from support.raw_site import BOUND
from support.sync_clients import BACKENDS, loop_threads
from support.sync_site import Serving, Site

from gprochat_anyio import SyncClient
from gprochat_anyio._sync import loop_thread as _loop_thread
from gprochat_anyio._sync.loop_thread import _Call

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def test_stop_from_another_thread(client: SyncClient, serving: Serving) -> None:
    with client.stream("endless") as chunks, ThreadPoolExecutor(1) as pool:
        pieces = iter(chunks)
        assert next(pieces) == "one "
        stopping = pool.submit(chunks.stop)
        assert list(pieces) == []
        stopping.result(BOUND)
        assert serving.was_left()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        chunks.stop()


def test_close_of_a_stream_from_another_thread(client: SyncClient, serving: Serving) -> None:
    with client.stream("endless") as chunks, ThreadPoolExecutor(1) as pool:
        pieces = iter(chunks)
        next(pieces)
        closing = pool.submit(chunks.close)
        with pytest.raises(anyio.ClosedResourceError):
            next(pieces)
        closing.result(BOUND)
        assert serving.was_left()


def test_several_threads(client: SyncClient, site: Site) -> None:
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda n: client.ask(f"q{n}").text, range(24)))
    assert texts == [f"Q{n}" for n in range(24)]
    assert len(loop_threads()) == 1


def test_two_threads_read_one_stream(client: SyncClient, serving: Serving) -> None:
    with client.stream("two") as chunks, ThreadPoolExecutor(1) as pool:
        pieces = iter(chunks)
        next(pieces)
        waiting = pool.submit(next, pieces)
        other = iter(chunks)
        while True:
            try:
                piece = next(other, None)
            except anyio.BusyResourceError:
                break
            raise AssertionError(piece)
        serving.more.release()
        assert waiting.result(BOUND) == "two"


@pytest.mark.parametrize("backend", BACKENDS)
def test_inside_a_running_event_loop(site: Site, backend: Any) -> None:
    async def cell() -> tuple[str, str]:
        with SyncClient(site.url, backend=backend) as client:
            return client.ask("hi").text, client.stream("there").read()

    assert asyncio.run(cell()) == ("HI", "THERE")


def test_a_loop_that_cannot_start(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*args: object, **kwargs: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(anyio, "run", run)
    with SyncClient(site.url) as client, pytest.raises(OSError, match="Too many open files"):
        client.ask("hi")


class _Thrown(BaseException):
    """An exception that no handler expects."""


def test_a_loop_that_breaks(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    run = anyio.run

    def breaking(func: Any, **options: Any) -> None:
        run(func, **options)
        raise BoomError

    async def prompts() -> AsyncIterator[str]:
        yield "a"
        raise _Thrown

    monkeypatch.setattr(anyio, "run", breaking)
    with SyncClient(site.url) as client:
        client.ask("hi")
    assert [args.exc_type for args in seen] == [BoomError]
    monkeypatch.undo()
    monkeypatch.setattr(threading, "excepthook", seen.append)
    with SyncClient(site.url) as client:
        with pytest.raises(_Thrown):
            client.gather(prompts())
        for thread in loop_threads():
            thread.join(BOUND)
        with pytest.raises(RuntimeError):
            client.ask("hi")


def test_cancelled_before_the_start(client: SyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is cancelled before the loop starts it does not run."""
    begun = []

    async def func() -> None:
        begun.append("begun")
        await checkpoint()
        begun.append("ended")

    async def cancelled_first() -> None:
        call = _Call(func)
        await call.cancel()
        with pytest.raises(CancelledError):
            await call.run()

    client._loop.run(cancelled_first)
    assert begun == []


def test_waiting_in_ticks(
    client: SyncClient, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where Ctrl-C does not interrupt a wait without a timeout."""
    monkeypatch.setattr(_loop_thread, "_TICK", 0.001)
    with ThreadPoolExecutor(1) as pool:
        with client.stream("two") as chunks:
            reading = pool.submit(chunks.read)
            assert serving.asked.acquire(timeout=BOUND)
            serving.more.release()
            assert reading.result(BOUND) == "one two"
        client.close()


def test_a_thread_that_cannot_start(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    client = SyncClient(site.url)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                client.ask("hi")
        failed = SyncClient(site.url)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            failed.ask("hi")
        failed.close()
        SyncClient(site.url).close()
    assert client.ask("hi").text == "HI"
    client.close()
