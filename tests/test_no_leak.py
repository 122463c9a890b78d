"""No leak under cancellation: at every suspension, and at every pair of them, of all that asks.

Descriptors of any kind and tasks are where they were as the cancellation leaves, with the garbage
collector off; slots are free, and the next request succeeds. What is below the client is in
transport/test_cancellation.py, odd fan-outs are in test_fanout_cancellation.py.
"""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint
from leaks import Operation, Place, needs_proc
from scripted import reply
from transport.proxies import proxying
from transport.servers import Peer, black_hole, client_context, server_context, serving

from gprochat_anyio import Client, fan_out, gather, race
from gprochat_anyio.batch import _journal as journal_module
from gprochat_anyio.batch import run_batch
from gprochat_anyio.testing._steps import LAST_CHUNK, REPLY_HEAD, chunk

pytestmark = needs_proc

Prompted = Callable[[str, Client], Awaitable[object]]
"""An operation that asks a prompt."""


@pytest.fixture(autouse=True)
def _no_garbage_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def site(peer: Peer) -> None:
    """Replies with texts that come in reads of their own; `next` gets its own in one."""
    while True:
        prompt = json.loads((await peer.request()).body)["messages"][-1]["parts"][0]["text"]
        if prompt == "next":
            await peer.send(reply("next"))
            continue
        await peer.send(REPLY_HEAD)
        for _ in range(4 if prompt == "short" else 7):
            await checkpoint()
            await peer.send(chunk(b"text"))
        await checkpoint()
        await peer.send(LAST_CHUNK)


@asynccontextmanager
async def place_of(kind: str) -> AsyncIterator[Place]:
    """A way to the site: plain, TLS, a kept connection, a proxy's tunnel; or into a black hole."""
    secure = kind in ("tls", "kept tls", "proxy", "deaf tls")
    handler = black_hole if kind.startswith("deaf") else site
    tls = server_context() if secure and not kind.startswith("deaf") else None
    settings = {"ssl_context": client_context()} if secure else {}
    with anyio.fail_after(30):
        async with serving(handler, tls=tls) as server, proxying() as proxy:
            url = f"{'https' if secure else 'http'}://127.0.0.1:{server.port}"
            place = Place(url, settings, {server.port, proxy.port})
            place.kept = kind.startswith("kept")
            place.answers = not kind.startswith("deaf")
            if kind == "proxy":
                place.settings["proxy"] = f"http://127.0.0.1:{proxy.port}"
                place.behind = {server.port}
            yield place


async def ask(prompt: str, client: Client) -> None:
    await client.ask(prompt)


async def stream(prompt: str, client: Client) -> None:
    async with client.stream(prompt) as chunks:
        async for _ in chunks:
            pass


async def left_early(prompt: str, client: Client) -> None:
    async with client.stream(prompt) as chunks:
        while len(chunks.text) < len("text" * 3):
            await chunks.receive()


async def stopped(prompt: str, client: Client) -> None:
    async with client.stream(prompt) as chunks:
        async for _ in chunks:
            chunks.stop()


async def stream_to(prompt: str, client: Client) -> None:
    """Into a channel that has no room, of which a task of the caller's reads."""
    send, receive = anyio.create_memory_object_stream[str]()
    async with anyio.create_task_group() as tasks:
        with receive, send:
            await tasks.start(client.stream_to, prompt, send)
            async for _ in receive:
                pass


async def ask_many(prompt: str, client: Client) -> None:
    async with fan_out(client, [prompt] * 3, max_at_once=2) as events:
        async for _ in events:
            pass


async def gathered(prompt: str, client: Client) -> None:
    await gather(client, [prompt] * 2)


async def raced(prompt: str, client: Client) -> None:
    async with race(client, prompt) as chunks:
        await chunks.read()


OPERATIONS = [ask, stream, left_early, stopped, stream_to, ask_many, gathered, raced]


def bounded(operation: Operation, seconds: float) -> Operation:
    """An operation that gives up by itself, for a peer that never answers."""

    async def run(client: Client) -> None:
        with anyio.move_on_after(seconds):
            await operation(client)

    return run


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", ["plain", "tls", "kept", "kept tls", "proxy"])
async def test_at_every_suspension(kind: str, operation: Prompted) -> None:
    async with place_of(kind) as place:
        await place.nothing_is_left(partial(operation, "long"))
        assert place.tried >= 4  # as it is sent, and while it waits: in two moments each


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", ["deaf", "deaf tls"])
async def test_of_a_peer_that_never_says_a_word(kind: str, operation: Prompted) -> None:
    async with place_of(kind) as place:
        await place.nothing_is_left(bounded(partial(operation, "long"), 0.01))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", ["plain", "deaf tls"])
async def test_at_every_pair_of_suspensions(kind: str, operation: Prompted) -> None:
    async with place_of(kind) as place:
        short: Operation = partial(operation, "short")
        if kind == "deaf tls":
            short = bounded(short, 0.01)
        await place.nothing_is_left(short, twice=True)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", ["tls", "kept", "proxy"])
async def test_at_every_pair_on_the_way_there(kind: str, operation: Prompted) -> None:
    async with place_of(kind) as place:
        await place.nothing_is_left(partial(operation, "short"), twice=True)


class TestBatch:
    """The way to the site is that of a fan-out; the files are the batch's own."""

    @pytest.fixture(autouse=True)
    def _quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(journal_module, "TICK", 0.001)

    @pytest.mark.parametrize(
        ("kind", "twice"),
        [
            (kind, twice)
            for kind in ("plain", "tls", "kept", "proxy", "deaf tls")
            for twice in (False, True)
        ],
    )
    async def test_at_every_suspension(self, tmp_path: Path, kind: str, *, twice: bool) -> None:
        out = tmp_path / "out"

        async def batch(client: Client) -> None:
            await run_batch(client, ["short"], out)

        async with place_of(kind) as place:
            operation = bounded(batch, 0.05) if kind == "deaf tls" else batch

            async def afresh(client: Client) -> None:
                out.unlink(missing_ok=True)
                await operation(client)

            await place.nothing_is_left(afresh, twice=twice)
            assert place.tried > 4
