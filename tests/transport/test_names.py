"""Name resolution, and connecting a single socket."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint, current_token
from support.servers import black_hole, closed_port, serving

from gprochat_anyio.testing import at_every_checkpoint
from gprochat_anyio.transport import _names
from gprochat_anyio.transport._connecting import connect
from gprochat_anyio.transport._names import connect_to, resolve
from gprochat_anyio.transport._target import Target

from .connecting import recorded_sockets, resolving


@asynccontextmanager
async def busy_threads() -> AsyncIterator[None]:
    """Block all threads of asyncio's default executor, and exhaust AnyIO's default limiter."""
    release = threading.Event()
    loop: Any = current_token().native_token
    busy: list[Any] = []
    if isinstance(loop, asyncio.AbstractEventLoop):
        busy = [loop.run_in_executor(None, release.wait, 20) for _ in range(64)]
    limiter = to_thread.current_default_thread_limiter()
    borrowers = [object() for _ in range(int(limiter.available_tokens))]
    for borrower in borrowers:
        limiter.acquire_on_behalf_of_nowait(borrower)
    try:
        yield
    finally:
        release.set()
        for borrower in borrowers:
            limiter.release_on_behalf_of(borrower)
        if busy:
            await asyncio.wait(busy)


class TestResolving:
    @pytest.mark.parametrize(
        ("found", "order"),
        [
            (["10.0.0.1"], ["10.0.0.1"]),
            (["10.0.0.1", "10.0.0.1"], ["10.0.0.1"]),
            (["::1", "::2", "::3", "10.0.0.1"], ["::1", "10.0.0.1", "::2", "::3"]),
            (["10.0.0.1", "::1", "10.0.0.2", "::2"], ["10.0.0.1", "::1", "10.0.0.2", "::2"]),
            (["10.0.0.1", "10.0.0.2", "::1"], ["10.0.0.1", "::1", "10.0.0.2"]),
        ],
    )
    async def test_alternates_between_families(self, found: list[str], order: list[str]) -> None:
        with resolving({"site.test": found}):
            assert [address[1][0] for address in await resolve("site.test", 80)] == order

    @pytest.mark.parametrize(
        ("host", "family", "address"),
        [
            ("127.0.0.1", socket.AF_INET, ("127.0.0.1", 80)),
            ("::1", socket.AF_INET6, ("::1", 80, 0, 0)),
        ],
    )
    async def test_an_address_needs_no_thread(
        self, host: str, family: int, address: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(to_thread, "run_sync", None)
        assert await resolve(host, 80) == [(family, address)]

    async def test_an_address_with_a_scope(self, monkeypatch: pytest.MonkeyPatch) -> None:
        index, name = socket.if_nameindex()[0]
        monkeypatch.setattr(to_thread, "run_sync", None)
        ((family, address),) = await resolve(f"fe80::1%{name}", 80)
        assert (family, address[0].partition("%")[0]) == (socket.AF_INET6, "fe80::1")
        assert address[3] == index

    async def test_an_unknown_name(self) -> None:
        with resolving({}), pytest.raises(socket.gaierror, match="not known"):
            await resolve("site.test", 80)

    async def test_busy_threads_of_the_application_do_not_delay_lookups(self) -> None:
        async with serving(black_hole) as server:
            with resolving({"site.test": ["127.0.0.1"]}):
                async with busy_threads():
                    with anyio.fail_after(5):
                        opened = await connect(
                            Target("http", "site.test", server.port), ssl_context=None, uds=None
                        )
                    opened.socket.close()

    async def test_a_cancelled_lookup_leaves_its_thread_behind(self) -> None:
        hold = threading.Event()
        try:
            with resolving({"site.test": ["127.0.0.1"]}, hold=hold) as names:
                with anyio.fail_after(5), anyio.CancelScope() as scope:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(resolve, "site.test", 80)
                        assert await to_thread.run_sync(names.waiting.wait, 5)
                        scope.cancel()
                assert scope.cancelled_caught
                assert not hold.is_set()
                # the next lookup does not wait for that thread
                names.hold = None
                with anyio.fail_after(5):
                    assert await resolve("site.test", 80)
        finally:
            hold.set()

    async def test_the_limiter_is_the_event_loops_own(self) -> None:
        with resolving({"site.test": ["127.0.0.1"]}):
            await resolve("site.test", 80)
            limiter = _names._lookup_limiter()
            await resolve("site.test", 80)
        assert _names._lookup_limiter() is limiter
        assert limiter is not to_thread.current_default_thread_limiter()


@pytest.mark.slow
def test_no_event_loop_is_kept_by_its_limiter() -> None:
    loops: list[Any] = []

    async def look_up() -> None:
        await resolve("site.test", 80)
        loops.append(weakref.ref(asyncio.get_running_loop()))

    with resolving({"site.test": ["127.0.0.1"]}):
        asyncio.run(look_up())
    gc.collect()
    assert loops[0]() is None


class TestSockets:
    async def test_are_non_blocking_with_tcp_nodelay(self) -> None:
        async with serving(black_hole) as server:
            connected = await connect_to(socket.AF_INET, ("127.0.0.1", server.port))
            with connected:
                assert connected.gettimeout() == 0
                assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    async def test_connecting_is_a_checkpoint(self) -> None:
        for host in ("127.0.0.1", "255.255.255.255"):
            with recorded_sockets() as made, anyio.CancelScope() as scope:
                scope.cancel()
                await connect_to(socket.AF_INET, (host, 80))
            assert scope.cancelled_caught
            assert not made

    async def test_a_connection_that_would_block_on_windows(self) -> None:
        class WinSocket(socket.socket):
            def connect_ex(self, address: Any) -> int:
                code = super().connect_ex(address)
                return 10035 if code in (0, errno.EINPROGRESS) else code

        async with serving(black_hole) as server:
            with recorded_sockets(WinSocket), anyio.fail_after(5):
                connected = await connect_to(socket.AF_INET, ("127.0.0.1", server.port))
            assert connected.getpeername()[1] == server.port
            connected.close()
        with recorded_sockets(WinSocket) as made, anyio.fail_after(5), pytest.raises(OSError):
            await connect_to(socket.AF_INET, ("127.0.0.1", closed_port()))
        assert not made.still_open()

    async def test_a_unix_socket_whose_queue_is_full_refuses(self, tmp_path: Path) -> None:
        """Linux then reports EAGAIN, which does not mean that the connection is in progress."""
        path = str(tmp_path / "socket")
        with socket.socket(socket.AF_UNIX) as listener, recorded_sockets() as made:
            listener.bind(path)
            listener.listen(0)
            with pytest.raises(OSError, match=os.strerror(errno.EAGAIN)):
                for _ in range(10):
                    await connect_to(socket.AF_UNIX, path)
            (*accepted, refused) = made
            assert refused.fileno() < 0
            for connected in accepted:
                connected.close()

    async def test_cancelled_at_every_checkpoint(self) -> None:
        async def operation() -> None:
            with await connect_to(socket.AF_INET, ("127.0.0.1", server.port)):
                await checkpoint()

        async with serving(black_hole) as server:
            for cancel in at_every_checkpoint(twice=True):
                with recorded_sockets() as made:
                    await cancel(operation)
                assert not made.still_open(), cancel
