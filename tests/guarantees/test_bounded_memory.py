"""Memory is proportional to the text, in any pieces, and limited to 64 KiB without a consumer."""

from __future__ import annotations

import socket
import ssl
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import anyio
import pytest
from support.loops import virtual
from support.response_bytes import LAST_CHUNK, REPLY_HEAD, chunk
from support.servers import client_context, server_context

from gprochat_anyio import Client, Timeouts, fan_out
from gprochat_anyio.testing import Hold, Request, Say, Step, scripted_site

LIMIT = 64 * 1024


class TinyRecords:
    """A TLS server in a thread that sends one record for each two-byte HTTP chunk.

    It encrypts all records before it sends the first, so that a test measures the client's memory
    only.
    """

    def __init__(self, listener: socket.socket, count: int) -> None:
        self.url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        self.ready, self.go_on = Event(), Event()
        self._listener = listener
        self._count = count
        self._thread = Thread(target=self._serve)
        self._thread.start()

    def join(self) -> None:
        self.go_on.set()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(10)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = server_context().wrap_bio(incoming, outgoing, server_side=True)
        request = b""
        with connection:
            while not request.endswith(b"}"):
                try:
                    request += tls.read(LIMIT)
                except ssl.SSLWantReadError:
                    connection.sendall(outgoing.read())
                    incoming.write(connection.recv(LIMIT))
            tls.write(REPLY_HEAD)
            for _ in range(self._count):
                tls.write(chunk(b"ab"))
            tls.write(LAST_CHUNK)
            data = outgoing.read()
            self.ready.set()
            self.go_on.wait(10)
            connection.sendall(data)
            connection.recv(1)


@contextmanager
def tiny_records(count: int) -> Iterator[TinyRecords]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        site = TinyRecords(listener, count)
        try:
            yield site
        finally:
            site.join()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ask", "stream"])
async def test_two_byte_records_need_no_more_memory_than_their_text(way: str) -> None:
    count = 20_000
    lengths: list[int] = []

    async def receive(client: Client) -> None:
        if way == "ask":
            lengths.append(len((await client.ask("hi")).text))
        else:
            async with client.stream("hi") as chunks:
                async for _ in chunks:
                    pass
                lengths.append(len(chunks.text))

    with tiny_records(count) as site, anyio.fail_after(20):
        async with Client(site.url, ssl_context=client_context(), trust_env=False) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(receive, client)
                await anyio.to_thread.run_sync(site.ready.wait, 10)
                tracemalloc.start()
                site.go_on.set()
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    assert lengths == [2 * count]
    assert peak < 3 * 2 * count + 6 * LIMIT  # for the parts of one read


@pytest.fixture
def _untraced() -> Iterator[None]:
    """Disable tracing, e.g. for coverage: CPython extends a traced string by copying it."""
    trace = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(trace)


@pytest.mark.usefixtures("_untraced")
@pytest.mark.parametrize("size", [500_000, 2_000_000])
async def test_reading_the_text_after_every_piece_copies_nothing(size: int) -> None:
    """A copy would hold all text in memory twice. Without copies, the cost is linear."""
    piece = "x" * 5_000
    async with scripted_site([Say(piece)] * (size // len(piece))) as site, site.client() as client:
        tracemalloc.start()
        try:
            async with client.stream("hi") as chunks:
                length = 0
                async for text in chunks:
                    length += len(text)
                    assert len(chunks.text) == length
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert length == size
        assert peak < size + 300_000


@virtual
@pytest.mark.parametrize("way", ["stream", "stream_to", "fan_out"])
async def test_at_most_64_kib_wait_for_the_consumer(way: str) -> None:
    """The site then waits until the consumer has taken half of it."""
    sent = 0
    piece = "x" * 1_000
    slack = 3 * len(piece)  # in the channel, in the waiting task, and in a read

    def reply(request: Request) -> Iterator[Step | Hold]:
        nonlocal sent
        for _number in range(300):
            sent += len(piece)
            yield Say(piece)

    limits = Timeouts(total=None)
    async with scripted_site(reply) as site, site.client(timeouts=limits) as client:
        if way == "stream":
            async with client.stream("hi") as chunks:
                await anyio.sleep(1000)
                assert LIMIT <= sent <= LIMIT + slack
                while sent < 100_000:
                    before, taken = sent, 0
                    while sent == before:
                        taken += len(await chunks.receive())
                        await anyio.sleep(1)
                    assert taken >= LIMIT // 2 - slack
                    assert sent - len(chunks.text) <= LIMIT + slack
                await chunks.read()
                assert len(chunks.text) == 300 * len(piece)
        elif way == "stream_to":
            send, receive = anyio.create_memory_object_stream[str](1)
            async with receive, anyio.create_task_group() as tasks:
                tasks.start_soon(client.stream_to, "hi", send)
                await anyio.sleep(1000)
                assert LIMIT <= sent <= LIMIT + slack
                assert len("".join([text async for text in receive])) == 300 * len(piece)
        else:
            async with fan_out(client, ["hi"], max_at_once=1) as events:
                await anyio.sleep(1000)
                assert sent <= 2 * LIMIT
                async for _ in events:
                    pass
        assert sent == 300 * len(piece)
