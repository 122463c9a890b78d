"""Ctrl-C and signal handlers in the calls of a SyncClient."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.exceptions import BoomError
from support.raw_site import BOUND
from support.sync_clients import BACKENDS, POSIX, script
from support.sync_site import Serving, Site

from gprochat_anyio import SyncClient

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@contextmanager
def interrupting(condition: threading.Semaphore) -> Iterator[None]:
    """Raise `BoomError` in this thread, which must be the main one, once the condition holds."""

    def handler(*_: object) -> None:
        raise BoomError

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
    with interrupting(serving.asked), pytest.raises(BoomError) as caught:
        client.ask(prompt)
    assert caught.value.__context__ is None
    assert serving.was_left()
    with interrupting(serving.asked), pytest.raises(BoomError):
        for _ in client.stream(prompt):
            pass
    assert serving.was_left()
    conversation = client.conversation()
    with interrupting(serving.asked), pytest.raises(BoomError):
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
        raise BoomError

    monkeypatch.setattr(client._loop, "run", interrupted)
    with pytest.raises(BoomError), client.stream("endless"):
        raise AssertionError
    assert serving.was_left()


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


@pytest.mark.parametrize("moment", ["before", "after"])
def test_ctrl_c_as_the_thread_starts(
    site: Site, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        monkeypatch.undo()
        if moment == "after":
            start(thread)
        raise BoomError

    def use() -> None:
        with SyncClient(site.url) as client:
            monkeypatch.setattr(threading.Thread, "start", interrupted)
            with pytest.raises(BoomError):
                client.ask("hi")
            said.append(client.ask("hi").text)
            client._loop._main()  # as in a thread that starts second
            said.append(client.ask("hi").text)

    said: list[str] = []
    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    thread.join(BOUND)
    assert said == ["HI", "HI"]
