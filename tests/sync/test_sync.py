"""SyncClient: replies without async, closing, Ctrl-C, threads, forks, and the interpreter's
exit."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from anyio.lowlevel import checkpoint
from support import servers
from support.garbage import without_garbage_collector
from support.http_libraries import httpx
from support.raw_site import (
    BOUND,
    END,
    HEAD,
    INTERRUPTIBLE,
    Exchange,
    RawSite,
    environment,
    failing,
    process_of,
    raw_site,
    replying,
)
from support.response_bytes import answer

from gprochat_anyio import (
    Client,
    GPROChatError,
    Message,
    ReplyInterruptedError,
    RequestTimeoutError,
    Retry,
    SiteError,
    SyncClient,
    SyncReplyStream,
    Timeouts,
    gather,
)
from gprochat_anyio._sync import loop_thread as _loop_thread
from gprochat_anyio._sync.loop_thread import LoopThread, _Call
from gprochat_anyio.testing import Refuse, scripted_site

BACKENDS = ["asyncio", "trio"]
CANARY = "canary-of-the-prompt"
POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="requires POSIX signals and forks")


class _BoomError(Exception):
    pass


class Serving:
    """State of a scripted site: permission to send more text, and connections that clients left."""

    def __init__(self) -> None:
        self.more = threading.Semaphore(0)
        self.asked = threading.Semaphore(0)
        self.left = threading.Semaphore(0)

    def endless(self, exchange: Exchange) -> None:
        """Send one text, without an end."""
        exchange.send(HEAD)
        exchange.text("one ")
        self.asked.release()
        exchange.until_left()
        self.left.release()

    def silent(self, exchange: Exchange) -> None:
        self.asked.release()
        exchange.until_left()
        self.left.release()

    def by_prompt(self, exchange: Exchange) -> None:
        if exchange.prompt in ("endless", "silent"):
            getattr(self, exchange.prompt)(exchange)
        elif exchange.prompt == "cut":
            exchange.send(HEAD)
            exchange.text("one ")
        elif exchange.prompt == "refused":
            failing(400, "no")(exchange)
        elif exchange.prompt == "two":
            exchange.send(HEAD)
            exchange.text("one ")
            self.asked.release()
            assert self.more.acquire(timeout=BOUND)
            exchange.text("two")
            exchange.send(END)
        else:
            replying(exchange.prompt.upper())(exchange)

    def was_left(self) -> bool:
        return self.left.acquire(timeout=BOUND)


class Site(RawSite):
    """A site that serves each connection in its own thread."""

    _stopping = False

    def stop(self) -> None:
        self._stopping = True
        super().stop()

    def _run(self) -> None:
        try:
            with ThreadPoolExecutor(32) as pool:
                serving = []
                while True:
                    connection, _ = self._listener.accept()
                    if self._stopping:
                        connection.close()
                        break
                    connection.settimeout(BOUND)
                    serving.append(pool.submit(self._one, connection))
            for future in serving:
                future.result()
        except BaseException as failure:  # noqa: BLE001 - raised by stop
            self._failure = failure

    def _one(self, connection: socket.socket) -> None:
        with connection:
            self._serve(connection)


def loop_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("gprochat_anyio")]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert loop_threads() == []


@pytest.fixture
def serving() -> Serving:
    return Serving()


@pytest.fixture
def site(serving: Serving) -> Iterator[Site]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        site = Site(listener, serving.by_prompt)
        site.start()
        try:
            yield site
        finally:
            site.stop()


@pytest.fixture(params=BACKENDS)
def client(site: Site, request: pytest.FixtureRequest) -> Iterator[SyncClient]:
    with SyncClient(site.url, backend=request.param, retry=Retry(backoff=0)) as client:
        yield client


def test_ask(client: SyncClient, site: Site) -> None:
    reply = client.ask("hi")
    assert reply.text == "HI"
    assert reply.timing.characters == 2
    client.ask([{"role": "user", "content": "a"}, Message("model", "b"), Message("user", "c")])
    assert [m["role"] for m in site.bodies[-1]["messages"]] == ["user", "model", "user"]
    assert len(loop_threads()) == 1


def test_stream_in_a_block(client: SyncClient, serving: Serving) -> None:
    with client.stream("two") as chunks:
        pieces = iter(chunks)
        assert next(pieces) == "one "
        assert chunks.text == "one "
        assert chunks.timing.chunks == 1
        serving.more.release()
        assert list(chunks) == ["two"]
        assert list(chunks) == []
        assert chunks.read() == ""
    assert chunks.text == "one two"
    client.close()
    assert chunks.text == "one two"
    assert chunks.timing.characters == 7


def test_stream_without_a_block(client: SyncClient, serving: Serving) -> None:
    serving.more.release()
    chunks = client.stream("two")
    assert "".join(chunks) == "one two"
    assert chunks.text == "one two"
    with pytest.raises(RuntimeError, match="entered first"):
        _ = client.stream("hi").text
    assert client.stream("hi").read() == "HI"


def test_leaving_the_block_closes_the_connection(client: SyncClient, serving: Serving) -> None:
    with client.stream("endless") as chunks:
        for _ in chunks:
            break
    assert serving.was_left()
    with pytest.raises(_BoomError) as caught, client.stream("endless"):
        raise _BoomError
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
        with pytest.raises(_BoomError):
            for _ in client.stream("endless"):
                raise _BoomError
        assert serving.was_left()

        def first() -> str:
            for piece in client.stream("endless"):
                return piece
            raise AssertionError

        assert first() == "one "
        assert serving.was_left()


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


def test_errors_are_library_errors(client: SyncClient) -> None:
    with pytest.raises(SiteError) as refused:
        client.ask("refused")
    with pytest.raises(ReplyInterruptedError) as cut:
        for _ in client.stream("cut"):
            pass
    assert cut.value.partial_text == "one "
    with pytest.raises(ReplyInterruptedError) as cut_in_block, client.stream("cut") as chunks:
        chunks.read()
    with pytest.raises(RequestTimeoutError) as late:
        client.ask("silent", timeouts=Timeouts(first_chunk=0.01))
    with pytest.raises(RequestTimeoutError), client.stream("silent", timeouts=Timeouts(total=0.01)):
        raise AssertionError
    with pytest.raises(SiteError), client.stream("refused"):
        raise AssertionError
    for error in (refused.value, cut.value, cut_in_block.value, late.value):
        assert error.__context__ is error.__cause__ is None
        files = {frame.filename for frame in traceback.extract_tb(error.__traceback__)}
        assert files <= {__file__, *map(inspect.getfile, (SyncClient, SyncReplyStream, LoopThread))}
    assert client.ask("hi").text == "HI"


@pytest.mark.parametrize("prompt", [CANARY, f"{CANARY}\ud83d"])
def test_errors_hold_no_prompt(prompt: str) -> None:
    with (
        raw_site(failing(500, "no")) as site,
        SyncClient(site.url, retry=Retry(attempts=1)) as client,
    ):
        for way in (
            lambda: client.ask(prompt),
            lambda: client.stream(prompt).read(),
            lambda: client.gather([prompt], on_error="raise"),
            lambda: client.conversation().ask(prompt),
        ):
            with pytest.raises(GPROChatError) as caught:
                way()
            shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
            frames = [f for f in shown.stack if "/tests/" not in f.filename]
            assert frames
            assert CANARY not in "".join(str(f.locals) for f in frames)
            assert CANARY not in repr(caught.value)


@pytest.mark.parametrize("right", [True, False])
def test_check_password(right: bool) -> None:
    data = answer(200, b'{"code": 0}' if right else b'{"code": -1}', {})
    requests: list[servers.Request] = []
    handler = servers.repeating(data, seen=requests)
    with start_blocking_portal() as portal:
        with portal.wrap_async_context_manager(servers.serving(handler)) as site:
            with SyncClient(site.url, password="a password") as client:
                assert client.check_password() is right
    assert json.loads(requests[0].body) == {"pass": "a password"}


def test_gather(client: SyncClient) -> None:
    outcomes = client.gather(prompt for prompt in ("a", "refused", "b"))
    assert [o.reply and o.reply.text for o in outcomes] == ["A", None, "B"]
    with pytest.raises(SiteError):
        client.gather(["a", "refused"], on_error="raise")
    with pytest.raises(ValueError, match="prompts is a single str"):
        client.gather("abc")
    with pytest.raises(ValueError, match="max_at_once"):
        client.gather(["a"], max_at_once=0)

    async def prompts() -> AsyncIterator[str]:
        yield "a"

    assert [o.unwrap().text for o in client.gather(prompts())] == ["A"]


def test_conversation(client: SyncClient, site: Site, serving: Serving) -> None:
    conversation = client.conversation("Be brief.", 5)
    assert conversation.ask("one").text == "BE BRIEF.\n\nONE"
    with conversation.stream("endless") as chunks:
        for _ in chunks:
            break
    assert serving.was_left()
    assert [m.content for m in conversation.messages[2:]] == ["endless", "one "]
    before = conversation.messages
    with pytest.raises(_BoomError), conversation.retry() as chunks:
        next(iter(chunks))
        raise _BoomError
    assert conversation.messages is before
    for _ in conversation.retry():
        break
    assert [m.content for m in conversation.undo()] == ["endless", "one "]
    conversation.system = None
    again = client.conversation_from_json(conversation.to_json())
    assert (again.system, again.max_messages, again.messages) == (None, 5, conversation.messages)
    assert repr(again) == f"<SyncConversation of 2 messages with {client._client!r}>"
    with again.stream("endless"), pytest.raises(RuntimeError, match="in the middle of a turn"):
        again.ask("two")


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


def test_at_exit(site: Site) -> None:
    client = SyncClient(site.url)
    pieces = iter(client.stream("hi"))
    next(pieces)
    with pytest.warns(ResourceWarning, match="a SyncClient was not closed"):
        client._loop._at_exit()
    client._loop._at_exit()
    del pieces  # nothing waits for the thread, which stops anywhere
    with pytest.raises(RuntimeError, match="closed"):
        client.ask("hi")
    client.close()


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


def test_settings_are_the_same_as_the_clients() -> None:
    ours = inspect.signature(SyncClient).parameters
    theirs = inspect.signature(Client).parameters
    assert [str(p) for p in ours.values()][:-1] == [str(p) for p in theirs.values()]
    assert list(ours)[-1] == "backend"
    ours = inspect.signature(SyncClient.gather).parameters
    theirs = inspect.signature(gather).parameters
    assert [str(p) for p in ours.values()][2:] == [str(p) for p in theirs.values()][2:]


def test_settings(monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    limits, retry = Timeouts(total=3), Retry(attempts=2)
    monkeypatch.setenv("GPROCHAT_URL", site.url)
    with SyncClient.from_env(backend="trio", timeouts=limits, retry=retry) as client:
        assert client.ask("hi").text == "HI"
        assert client.timeouts.total == 3
        assert client.retry is retry
        assert repr(client) == f"<SyncClient of {client._client!r}>"
    with pytest.raises(ValueError, match="backend"):
        SyncClient(site.url, backend="curio")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_connections"):
        SyncClient(site.url, max_connections=0)


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
        raise _BoomError

    async def prompts() -> AsyncIterator[str]:
        yield "a"
        raise _Thrown

    monkeypatch.setattr(anyio, "run", breaking)
    with SyncClient(site.url) as client:
        client.ask("hi")
    assert [args.exc_type for args in seen] == [_BoomError]
    monkeypatch.undo()
    monkeypatch.setattr(threading, "excepthook", seen.append)
    with SyncClient(site.url) as client:
        with pytest.raises(_Thrown):
            client.gather(prompts())
        for thread in loop_threads():
            thread.join(BOUND)
        with pytest.raises(RuntimeError):
            client.ask("hi")


@contextmanager
def interrupting(condition: threading.Semaphore) -> Iterator[None]:
    """Raise `_BoomError` in this thread, which must be the main one, once the condition holds."""

    def handler(*_: object) -> None:
        raise _BoomError

    def interrupt() -> None:
        assert condition.acquire(timeout=BOUND)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        thread.join(BOUND)
        signal.signal(signal.SIGUSR1, before)


@POSIX
@pytest.mark.parametrize("prompt", ["silent", "endless"])
def test_an_exception_of_a_signal_handler(
    client: SyncClient, serving: Serving, prompt: str
) -> None:
    with interrupting(serving.asked), pytest.raises(_BoomError) as caught:
        client.ask(prompt)
    assert caught.value.__context__ is None
    assert serving.was_left()
    with interrupting(serving.asked), pytest.raises(_BoomError):
        for _ in client.stream(prompt):
            pass
    assert serving.was_left()
    conversation = client.conversation()
    with interrupting(serving.asked), pytest.raises(_BoomError):
        conversation.ask(prompt)
    assert serving.was_left()
    assert conversation.messages == ()
    assert conversation.ask("hi").text == "HI"


@POSIX
def test_as_a_stream_is_entered(
    client: SyncClient, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = client._loop.run

    def interrupted(func: Any) -> Any:
        monkeypatch.undo()
        run(func)
        raise _BoomError

    monkeypatch.setattr(client._loop, "run", interrupted)
    with pytest.raises(_BoomError), client.stream("endless"):
        raise AssertionError
    assert serving.was_left()


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


def test_after_a_fork(client: SyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with client.stream("hi") as chunks:
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: -1)
            with pytest.raises(RuntimeError, match="used before the process forked"):
                client.ask("hi")
            chunks.close()
            client.close()
            client._loop.abandon()
            client._loop._at_exit()
        assert chunks.read() == "HI"


@contextmanager
def script(
    code: str, url: str, *, flags: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in its own process, which is killed at the end of the block or after
    `BOUND`."""
    setup = f"{INTERRUPTIBLE}\nimport os, sys, threading\nfrom gprochat_anyio import SyncClient\n"
    with process_of(
        [sys.executable, "-W", "error", *flags, "-c", f"{setup}url = {url!r}\n{code}"],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        yield process


@pytest.mark.slow
@POSIX
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("way", ["ask", "block", "plain", "gather", "opening"])
def test_ctrl_c(way: str, backend: str, site: Site, serving: Serving) -> None:
    waiting = {
        "ask": "client.ask('endless')",
        "block": "with client.stream('endless') as chunks:\n   for _ in chunks: pass",
        "plain": "for _ in client.stream('endless'): pass",
        "gather": "client.gather(['silent'])",
        "opening": "with client.stream('silent'): pass",
    }[way]
    code = f"""
with SyncClient(url, backend={backend!r}) as client:
 try:
  {waiting}
 except KeyboardInterrupt as error:
  assert error.__context__ is None
  print('interrupted', flush=True)
  sys.stdin.close()
 print(client.ask('hi').text)
"""
    with script(code, site.url) as process:
        assert serving.asked.acquire(timeout=BOUND)
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == b"interrupted\n"
        assert serving.was_left()
        out, err = process.communicate(timeout=BOUND)
    assert (out, err, process.returncode) == (b"HI\n", b"", 0)


@pytest.mark.slow
@POSIX
def test_ctrl_c_ends_a_program(site: Site, serving: Serving) -> None:
    code = "with SyncClient(url) as client:\n for _ in client.stream('endless'): pass"
    with script(code, site.url) as process:
        assert serving.asked.acquire(timeout=BOUND)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=BOUND)
    assert serving.was_left()
    assert out == b""
    assert err.rstrip().endswith(b"KeyboardInterrupt")
    assert err.count(b"Traceback") == 1
    assert process.returncode == -signal.SIGINT


@pytest.mark.slow
@POSIX
def test_a_signal_handler_may_stop_a_stream(site: Site, serving: Serving) -> None:
    code = """
import signal
with SyncClient(url) as client, client.stream('endless') as chunks:
    signal.signal(signal.SIGINT, lambda *_: chunks.stop())
    pieces = iter(chunks)
    print(next(pieces), flush=True)
    for _ in pieces: pass
    print(chunks.text)
"""
    with script(code, site.url) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"one \n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=BOUND)
    assert (out, err, process.returncode) == (b"one \n", b"", 0)
    assert serving.was_left()


FORSAKEN = {
    "idle": "client = SyncClient(url); client.ask('hi')",
    "stream": "client = SyncClient(url); chunks = client.stream('endless').__enter__()",
    "plain": "client = SyncClient(url); pieces = iter(client.stream('endless')); next(pieces)",
    "thread": (
        "client = SyncClient(url); pieces = iter(client.stream('endless')); next(pieces)\n"
        "threading.Thread(target=next, args=(pieces,), daemon=True).start()"
    ),
    "other thread": (
        "client = SyncClient(url)\n"
        "threading.Thread(target=client.ask, args=('endless',), daemon=True).start()\n"
        "client.ask('hi')"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("way", FORSAKEN)
def test_a_program_ends_without_closing(way: str, backend: str, site: Site) -> None:
    code = FORSAKEN[way].replace("SyncClient(url)", f"SyncClient(url, backend={backend!r})")
    with script(f"{code}\nprint('end')", site.url, flags=("-W", "default::ResourceWarning")) as p:
        out, err = p.communicate(timeout=BOUND)
    assert (out, p.returncode) == (b"end\n", 0)
    assert err.count(b"ResourceWarning: a SyncClient was not closed") == 1
    assert err.count(b"Warning") == 1
    assert b"Traceback" not in err


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


@pytest.mark.slow
@POSIX
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a fork beside threads, on purpose
def test_forks(site: Site) -> None:
    code = """
unused = SyncClient(url)
client = SyncClient(url)
print(client.ask('hi').text, flush=True)
stream = client.stream('two-')
stream.__enter__()
child = os.fork()
if not child:
    try: client.ask('hi')
    except RuntimeError as error: print(error, flush=True)
    stream.close()
    client.close()
    with unused: print(unused.ask('child').text, flush=True)
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
print(stream.read(), client.ask('parent').text)
stream.close()
client.close()
unused.close()
"""
    flags = ("-W", "ignore::DeprecationWarning")
    with script(code, site.url, flags=flags) as process:
        out, err = process.communicate(timeout=BOUND)
    assert err == b""
    lines = out.decode().splitlines()
    assert lines[0] == "HI"
    assert "used before the process forked" in lines[1]
    assert lines[2:] == ["CHILD", "TWO- PARENT"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_text_if_entering_the_block_fails(backend: Any) -> None:
    with scripted_site(Refuse(500, "broken")) as site:
        with SyncClient(site.url, backend=backend) as client:
            chunks = client.stream("Hi")
            with pytest.raises(RuntimeError, match="entered first"):
                _ = chunks.text
            with pytest.raises(SiteError), chunks:
                pass
            assert chunks.text == ""
            with pytest.raises(RuntimeError, match="entered first"):
                _ = chunks.timing


@pytest.mark.parametrize("moment", ["before", "after"])
def test_ctrl_c_as_the_thread_starts(
    site: Site, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        monkeypatch.undo()
        if moment == "after":
            start(thread)
        raise _BoomError

    def use() -> None:
        with SyncClient(site.url) as client:
            monkeypatch.setattr(threading.Thread, "start", interrupted)
            with pytest.raises(_BoomError):
                client.ask("hi")
            said.append(client.ask("hi").text)
            client._loop._main()  # as in a thread that starts second
            said.append(client.ask("hi").text)

    said: list[str] = []
    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    thread.join(BOUND)
    assert said == ["HI", "HI"]


FINALIZED = {
    "used": "client = SyncClient(url); client.ask('hi')",
    "unused": "client = SyncClient(url)",
    "stream": "client = SyncClient(url); chunks = client.stream('endless').__enter__()",
}


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("way", FINALIZED)
def test_a_finalizer_as_the_interpreter_ends(way: str, backend: str, site: Site) -> None:
    code = f"""
class Owner:
    def __del__(self):
        try: client.ask('hi')
        except RuntimeError as error: os.write(1, str(error).encode())
        if 'chunks' in globals(): chunks.close()
        client.close()
        os.write(1, b', closed')
{FINALIZED[way].replace("(url)", f"(url, backend={backend!r})")}
owner = Owner()
"""
    with script(code, site.url, flags=("-W", "ignore::ResourceWarning")) as p:
        out, err = p.communicate(timeout=BOUND)
    said = b"the interpreter is shutting down, which has stopped the loop of this SyncClient"
    assert (out, err, p.returncode) == (said + b", closed", b"", 0)


def test_a_loop_without_its_interpreter(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with SyncClient(site.url) as client:
        client.ask("hi")
        with monkeypatch.context() as patched:
            patched.setattr(sys, "is_finalizing", lambda: True)
            client.close()
            with pytest.raises(RuntimeError, match="the interpreter is shutting down"):
                client.ask("hi")
        client.ask("hi")
