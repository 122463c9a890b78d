"""Sources that block: waiting for them can be cancelled, and loses no line."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread
from support.batch_site import batch_site
from support.blocked import all_tasks_blocked

from gprochat_anyio import Client
from gprochat_anyio.batch import run_batch
from gprochat_anyio.batch._lines import LineReader

BOUND = 5.0

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX files")


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Path]:
    """Return the path of a named pipe. A thread that hangs opening it is released later."""
    path = tmp_path / "in.txt"
    os.mkfifo(path)

    def free() -> None:
        with suppress(OSError):  # the pipe has no reader
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))

    timer = threading.Timer(BOUND, free)
    timer.start()
    yield path
    timer.cancel()


def is_empty(out: Path) -> bool:
    return not out.read_bytes()


async def cancelled_quickly(source: Any, out: Path) -> None:
    """Run a batch with a source without data, and cancel it."""
    async with batch_site() as site, Client(site.url, trust_env=False) as client:
        began = anyio.current_time()
        with anyio.move_on_after(0.05) as scope:
            await run_batch(client, source, out)
        assert scope.cancelled_caught
        assert anyio.current_time() - began < BOUND / 2
    assert is_empty(out)


class TestNamedPipe:
    async def test_without_a_writer_can_be_cancelled(self, tmp_path: Path, fifo: Path) -> None:
        await cancelled_quickly(fifo, tmp_path / "out")

    async def test_returns_lines_of_a_later_writer(self, fifo: Path) -> None:
        reader = LineReader(fifo)
        reader.open()
        got = []
        with anyio.fail_after(BOUND):
            async with anyio.create_task_group() as tg:

                async def read() -> None:
                    while lines := await reader.next_lines():
                        got.extend(lines)

                tg.start_soon(read)
                await all_tasks_blocked()
                with await to_thread.run_sync(fifo.open, "wb") as end:
                    end.write(b"one\ntw")
                    end.flush()
                    await all_tasks_blocked()
                    end.write(b"o")
        reader.close()
        assert got == [b"one", b"two"]

    async def test_waits_again_after_another_reader_has_read_the_data(
        self, fifo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = os.read
        robbed: list[bool] = []

        def rob(descriptor: int, size: int) -> bytes:
            if not robbed:
                robbed.append(True)
                raise BlockingIOError
            return read(descriptor, size)

        reader = LineReader(fifo)
        reader.open()
        with fifo.open("wb") as end:
            end.write(b"one")
        monkeypatch.setattr(os, "read", rob)
        with anyio.fail_after(BOUND):
            assert await reader.next_lines() == [b"one"]
        assert robbed
        reader.close()


class TestSocket:
    async def test_without_data_can_be_cancelled(self, tmp_path: Path) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs, ours.makefile("rb") as source:
            await cancelled_quickly(source, tmp_path / "out")

    async def test_read_in_a_thread_can_be_cancelled(self, tmp_path: Path) -> None:
        """Read in a thread what is not the socket's bytes, as from a response of `urllib`."""
        ours, theirs = socket.socketpair()

        class Response:
            fileno = ours.fileno

            def read(self, size: int) -> bytes:
                return ours.recv(size)

        with ours, theirs:
            timer = threading.Timer(BOUND, theirs.shutdown, (socket.SHUT_WR,))
            timer.start()
            await cancelled_quickly(Response(), tmp_path / "out")
            timer.cancel()
            theirs.shutdown(socket.SHUT_WR)  # ends the thread
