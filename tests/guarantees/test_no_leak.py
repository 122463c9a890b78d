"""No leak under cancellation at every suspension, and at every pair of suspensions, of every
operation.

When the cancellation leaves, the process has no additional descriptors or tasks, without garbage
collection. Slots are free, and the next request succeeds. transport/test_cancellation.py tests the
layers below the client, and test_fanout_cancellation.py unusual fan-outs.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.leaks import Operation, Place, needs_proc
from support.proxies import proxying
from support.response_bytes import LAST_CHUNK, REPLY_HEAD, chunk
from support.scripted import reply
from support.servers import Peer, black_hole, client_context, server_context, serving

from gprochat_anyio import Client, fan_out, gather, race
from gprochat_anyio.batch import _journal as journal_module
from gprochat_anyio.batch import run_batch

pytestmark = [
    needs_proc,
    pytest.mark.slow,
    pytest.mark.usefixtures("no_garbage_collector"),
]

Prompted = Callable[[str, Client], Awaitable[object]]
"""An operation that sends a prompt."""


async def site(peer: Peer) -> None:
    """Serve replies whose texts come in separate reads; `next` gets its own in one."""
    while True:
        prompt = json.loads((await peer.request()).body)["messages"][-1]["parts"][0]["text"]
        if prompt == "next":
            await peer.send(reply("next"))
            continue
        await peer.send(REPLY_HEAD)
        for _ in range(2 if prompt == "short" else 4):
            await checkpoint()
            await peer.send(chunk(b"text"))
        await checkpoint()
        await peer.send(LAST_CHUNK)


@asynccontextmanager
async def place_of(kind: str) -> AsyncIterator[Place]:
    """Yield a way to the site: plain, TLS, an idle connection, or a proxy's tunnel. Or a black
    hole."""
    secure = kind in ("tls", "kept tls", "proxy", "deaf tls")
    handler = black_hole if kind.startswith("deaf") else site
    tls = server_context() if secure and not kind.startswith("deaf") else None
    settings = {"ssl_context": client_context()} if secure else {}
    with anyio.fail_after(120):  # hundreds of cancelled runs, on a machine that may be busy
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
        await chunks.receive()


async def stopped(prompt: str, client: Client) -> None:
    async with client.stream(prompt) as chunks:
        async for _ in chunks:
            chunks.stop()


async def stream_to(prompt: str, client: Client) -> None:
    """Stream into a channel without a buffer, from which a task of the caller receives."""
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
"""All operations that send requests. They differ in the waiting and the closing task."""

REPRESENTATIVE = [ask, ask_many, raced]
"""Operations with one connection, with several, and with several of which one is kept."""


def each_over(*kinds: str) -> pytest.MarkDecorator:
    """Parametrize with all operations for the first way, and with some for the others.

    Operations are above the channel, ways below it. `--full` combines all of them.
    """
    pairs = ((kind, operation) for kind in kinds for operation in OPERATIONS)
    return pytest.mark.parametrize(
        ("kind", "operation"),
        [
            pytest.param(kind, operation, marks=_marks(kind == kinds[0], operation))
            for kind, operation in pairs
        ],
    )


def _marks(first: bool, operation: Prompted) -> list[pytest.MarkDecorator]:
    return [] if first or operation in REPRESENTATIVE else [pytest.mark.full]


def bounded(operation: Operation, seconds: float) -> Operation:
    """Return an operation with a deadline, for a peer that never responds."""

    async def run(client: Client) -> None:
        with anyio.move_on_after(seconds):
            await operation(client)

    return run


@each_over("tls", "plain", "kept", "kept tls", "proxy")
async def test_at_every_suspension(kind: str, operation: Prompted) -> None:
    async with place_of(kind) as place:
        await place.nothing_is_left(partial(operation, "long"))
        assert place.tried >= 4  # sending and waiting, with two suspensions each


@each_over("deaf tls", "deaf")
async def test_of_a_silent_peer(kind: str, operation: Prompted) -> None:
    async with place_of(kind) as place:
        await place.nothing_is_left(bounded(partial(operation, "long"), 0.01))


@each_over("plain", "deaf tls")
async def test_at_every_pair_of_suspensions(kind: str, operation: Prompted, *, full: bool) -> None:
    async with place_of(kind) as place:
        short: Operation = partial(operation, "short")
        if kind == "deaf tls":
            short = bounded(short, 0.01)
        await place.nothing_is_left_twice(short, full=full)


@pytest.mark.slow
@each_over("tls", "kept", "proxy")
async def test_at_every_pair_while_connecting(
    kind: str, operation: Prompted, *, full: bool
) -> None:
    async with place_of(kind) as place:
        await place.nothing_is_left_twice(partial(operation, "short"), full=full)


class TestBatch:
    """The way to the site is that of a fan-out. The files belong to the batch."""

    @pytest.fixture(autouse=True)
    def _quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(journal_module, "TICK", 0.001)

    @pytest.mark.parametrize(
        ("kind", "twice"),
        [
            ("plain", True),
            ("plain", False),
            ("tls", False),
            ("deaf tls", True),
            pytest.param("deaf tls", False, marks=pytest.mark.full),
            pytest.param("tls", True, marks=pytest.mark.full),
            pytest.param("kept", False, marks=pytest.mark.full),
            pytest.param("kept", True, marks=pytest.mark.full),
            pytest.param("proxy", False, marks=pytest.mark.full),
            pytest.param("proxy", True, marks=pytest.mark.full),
        ],
    )
    async def test_at_every_suspension(
        self, tmp_path: Path, kind: str, *, twice: bool, full: bool
    ) -> None:
        out = tmp_path / "out"

        async def batch(client: Client) -> None:
            await run_batch(client, ["short"], out)

        async with place_of(kind) as place:
            operation = bounded(batch, 0.05) if kind == "deaf tls" else batch

            async def afresh(client: Client) -> None:
                out.unlink(missing_ok=True)
                await operation(client)

            if twice:
                await place.nothing_is_left_twice(afresh, full=full)
            else:
                await place.nothing_is_left(afresh)
            assert place.tried > 4
