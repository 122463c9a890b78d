"""A quick site for batches: in the test's event loop, or in a thread for commands."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
from anyio.abc import ByteStream, SocketAttribute, TaskStatus
from anyio.from_thread import start_blocking_portal
from anyio.streams.buffered import BufferedByteReceiveStream
from raw_site import BOUND
from scripted import reply

Answer = Callable[[str], Awaitable[bytes]]


async def echo(prompt: str) -> bytes:
    """Every reply tells its prompt."""
    return reply(f"re: {prompt}")


class BatchSite:
    """Answers by `answer`, and remembers what it was asked."""

    def __init__(self, answer: Answer = echo) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.answer = answer
        self._more = threading.Condition()

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.asked)

    def wait_for(self, count: int) -> None:
        """Wait, in another thread, until it was asked so often."""
        with self._more:
            assert self._more.wait_for(lambda: len(self.asked) >= count, BOUND)

    async def serve(self, *, task_status: TaskStatus[str]) -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", backlog=1000)
        self.url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        async with listener:
            task_status.started(self.url)
            await listener.serve(self._handle)

    async def _handle(self, stream: ByteStream) -> None:
        received = BufferedByteReceiveStream(stream)
        try:
            while True:
                await self._exchange(received, stream)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.IncompleteRead):
            pass
        finally:
            with anyio.CancelScope(shield=True):
                await stream.aclose()

    async def _exchange(self, received: BufferedByteReceiveStream, stream: ByteStream) -> None:
        head = (await received.receive_until(b"\r\n\r\n", 65536)).lower()
        length = int(head.partition(b"content-length:")[2].split()[0])
        body = json.loads(await received.receive_exactly(length))
        prompt = body["messages"][-1]["parts"][0]["text"]
        with self._more:
            self.asked.append(prompt)
            self._more.notify_all()
        await stream.send(await self.answer(prompt))


@asynccontextmanager
async def batch_site(answer: Answer = echo) -> AsyncIterator[BatchSite]:
    """A site in this event loop, for the time of the block."""
    site = BatchSite(answer)
    async with anyio.create_task_group() as tasks:
        await tasks.start(site.serve)
        yield site
        tasks.cancel_scope.cancel()


@contextmanager
def batch_site_in_thread(answer: Answer = echo) -> Iterator[BatchSite]:
    """A site in a thread, for the time of the block."""
    site = BatchSite(answer)
    with start_blocking_portal() as portal:
        serving, _ = portal.start_task(site.serve)
        try:
            yield site
        finally:
            serving.cancel()
