"""Connecting, cancelled at every suspension, once and twice: no socket stays open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint
from support.proxies import proxying
from support.servers import Server, black_hole, client_context, server_context, serving

from gprochat_anyio.testing import Injection, at_every_checkpoint, cancelled
from gprochat_anyio.transport import _names
from gprochat_anyio.transport._connecting import connect
from gprochat_anyio.transport._target import Proxy, Target

from .connecting import recorded_sockets, resolving

pytestmark = pytest.mark.usefixtures("no_garbage_collector")


@asynccontextmanager
async def peers(site: str, proxy: str | None) -> AsyncIterator[tuple[Target, list[Server]]]:
    """Run a site at site.test, and a proxy."""
    async with AsyncExitStack() as stack:
        stack.enter_context(anyio.fail_after(100))
        tls = server_context() if site == "https" else None
        server = await stack.enter_async_context(serving(black_hole, tls=tls))
        if proxy is None:
            yield Target(site, "site.test", server.port), [server]
            return
        relay = await stack.enter_async_context(
            proxying(
                "socks5" if proxy == "socks5" else "http",
                credentials=("me", "secret"),
                tls=server_context() if proxy == "https" else None,
            )
        )
        assert relay.server is not None
        by = Proxy.from_url(f"{proxy}://me:secret@localhost:{relay.port}")
        yield Target(site, "site.test", server.port, by), [server, relay.server]


async def nothing_stays_open(
    target: Target, *, twice: bool, limit: float | None = None, uds: str | None = None
) -> int:
    """Cancel connecting everywhere, and return the number of cancelled runs.

    :param limit: Cancels each run after a number of seconds, for peers that never respond.
    """

    async def operation() -> None:
        with anyio.move_on_after(limit):
            opened = await connect(target, ssl_context=client_context(), uds=uds)
            with opened.socket:
                await checkpoint()

    runs = 0
    for cancel in at_every_checkpoint(twice=twice):
        with recorded_sockets() as made:
            await cancel(operation)
        assert not made.still_open(), cancel
        runs += cancel.end == "cancelled"
    return runs


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
class TestEverySuspension:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        "found", [["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"]], ids=["dead", "live"]
    )
    async def test_of_a_name_with_two_addresses(self, found: list[str], *, twice: bool) -> None:
        async with peers("http", None) as (target, servers):
            with resolving({"site.test": found}):
                assert await nothing_stays_open(target, twice=twice)
            await servers[0].all_ended()

    @pytest.mark.slow
    @pytest.mark.parametrize("site", ["http", "https"])
    @pytest.mark.parametrize("proxy", [None, "http", "https", "socks5"])
    async def test_of_tls_and_tunnels(self, site: str, proxy: str | None, *, twice: bool) -> None:
        async with peers(site, proxy) as (target, servers):
            with resolving({"site.test": ["127.0.0.1"]}):
                assert await nothing_stays_open(target, twice=twice)
            for server in reversed(servers):
                await server.all_ended()

    @pytest.mark.slow
    async def test_of_a_unix_socket(self, tmp_path: Path, *, twice: bool) -> None:
        path = tmp_path / "socket"
        async with serving(black_hole, path=path, tls=server_context()) as server:
            target = Target("https", "site.test", 443)
            assert await nothing_stays_open(target, twice=twice, uds=str(path))
            await server.all_ended()


@pytest.mark.slow
@pytest.mark.parametrize("site", ["http", "https"])
@pytest.mark.parametrize("proxy", [None, "http", "https", "socks5"])
async def test_peers_that_never_respond(site: str, proxy: str | None) -> None:
    async with serving(black_hole) as server:
        by = None if proxy is None else Proxy.from_url(f"{proxy}://127.0.0.1:{server.port}")
        target = Target(site, "127.0.0.1", server.port, by)
        await nothing_stays_open(target, twice=False, limit=0.02)
        await server.all_ended()


@pytest.mark.slow
async def test_addresses_that_never_respond(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both attempts hold a socket when the cancellation arrives."""

    async def never(_: int) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(anyio, "wait_writable", never)
    monkeypatch.setattr(_names, "ATTEMPT_DELAY", 0.001)
    async with serving(black_hole) as server:
        target = Target("http", "site.test", server.port)
        with resolving({"site.test": ["127.0.0.1", "127.0.0.2"]}):
            await nothing_stays_open(target, twice=False, limit=0.02)


@pytest.mark.slow
async def test_fifty_handshakes_at_once_with_a_black_hole() -> None:
    async with serving(black_hole) as server:
        target = Target("https", "127.0.0.1", server.port)
        with anyio.fail_after(10), recorded_sockets() as made:
            async with anyio.create_task_group() as tasks:
                for _ in range(50):
                    tasks.start_soon(_connect_for_ever, target)
                await server.until(lambda: server.accepted == 50)
                tasks.cancel_scope.cancel()
            assert len(made) == 50
            assert not made.still_open()
            await server.all_ended()


async def _connect_for_ever(target: Target) -> None:
    await connect(target, ssl_context=client_context(), uds=None)


@pytest.mark.slow
async def test_a_cancellation_is_not_wrapped() -> None:
    """The task group of Happy Eyeballs does not wrap it."""
    raised: list[BaseException] = []
    with resolving({"site.test": ["127.0.0.1", "127.0.0.2"]}):
        async with serving(black_hole) as server:
            target = Target("http", "site.test", server.port)

            async def operation() -> None:
                try:
                    opened = await connect(target, ssl_context=None, uds=None)
                except BaseException as error:
                    raised.append(error)
                    raise
                opened.socket.close()

            for at in range(1, 12):
                await cancelled(Injection(at), operation)
            assert raised
            assert {type(error) for error in raised} == {anyio.get_cancelled_exc_class()}
