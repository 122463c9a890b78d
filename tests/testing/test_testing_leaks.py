"""`no_leaks`: the leaks that it detects, and the resources that it tolerates."""

from __future__ import annotations

import gc
import socket
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import anyio
import pytest
from anyio.abc import TaskStatus
from anyio.lowlevel import checkpoint
from support.loops import virtual

from gprochat_anyio import Client
from gprochat_anyio._request.chat_client import opener_of
from gprochat_anyio.testing import Hang, Say, _leaks, live_site, no_leaks, scripted_site
from gprochat_anyio.transport._http_library import httpx


async def test_nothing_is_left() -> None:
    assert gc.isenabled()
    async with scripted_site("a") as site, site.client() as client:
        async with no_leaks(client):
            assert not gc.isenabled()
            await client.ask("Hi")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep, 0)
            with socket.socket():
                pass
    assert gc.isenabled()


async def test_the_garbage_collectors_state_is_restored() -> None:
    gc.disable()
    try:
        async with no_leaks():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


async def test_a_task() -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever, name="there before")
        with pytest.raises(AssertionError, match=r"left behind:\n  task mine$"):
            async with no_leaks():
                tasks.start_soon(anyio.sleep_forever, name="mine")
        tasks.cancel_scope.cancel()


async def test_the_librarys_own_tasks_get_time_to_end() -> None:
    cancel: list[Callable[[], object]] = []

    async def own(turns: int, *, task_status: TaskStatus[None]) -> None:
        task_status.started()
        with anyio.CancelScope() as scope:
            cancel.append(scope.cancel)
            await anyio.sleep_forever()
        with anyio.CancelScope(shield=True):
            for _ in range(turns):
                await checkpoint()

    for turns, leaks in ((0, False), (3, False), (100, True)):
        async with anyio.create_task_group() as tasks:
            expected = pytest.raises(AssertionError, match="task gprochat_anyio pump")
            with expected if leaks else nullcontext():
                async with no_leaks():
                    await tasks.start(partial(own, turns), name="gprochat_anyio pump")
                    cancel.pop()()


async def test_the_reactor_is_not_a_leak() -> None:
    """The reactor ends with the last connection, and connections are counted."""
    async with scripted_site("a") as site, site.client() as client:
        async with no_leaks():
            await client.ask("Hi")
            assert opener_of(client).pool.statistics().idle  # type: ignore[union-attr]


async def test_an_open_exchange_in_memory_is_a_leak() -> None:
    async with scripted_site([Say("a"), Hang()]) as site, site.client() as client:
        stream = client.stream("Hi")
        with pytest.raises(AssertionError, match="task gprochat_anyio pump"):
            async with no_leaks():
                await stream.__aenter__()
        await stream.__aexit__(None, None, None)


async def test_sockets() -> None:
    one, other = socket.socketpair()
    check = no_leaks()
    with one, other, socket.socket() as unconnected:
        await check.__aenter__()
        more = one.dup()
        unconnected_too = unconnected.dup()
        with pytest.raises(AssertionError) as caught:
            await check.__aexit__(None, None, None)
    lines = str(caught.value).splitlines()
    assert lines[0] == "left behind:"
    assert f"  socket {more.fileno()}, connected to " in lines[1] + lines[2]
    assert f"  socket {unconnected_too.fileno()}, not connected" in lines
    more.close()
    unconnected_too.close()


async def test_idle_connections_of_given_clients_are_not_a_leak() -> None:
    with anyio.fail_after(10):
        async with live_site("a") as site:
            port = int(site.url.rpartition(":")[2])
            async with site.client() as client:
                before = {t.id for t in anyio.get_running_tasks()}
                with pytest.raises(AssertionError) as caught:
                    async with no_leaks():
                        await client.ask("Hi")
                assert f"('127.0.0.1', {port})" in str(caught.value)
                assert {t.id for t in anyio.get_running_tasks()} - before  # the site's
                async with no_leaks(client):
                    await client.ask("Hi")
            await site.until(lambda: not site.open_connections)
            async with no_leaks(grace=5):
                async with site.client() as client:
                    await client.ask("Hi")


async def test_slots() -> None:
    async with scripted_site([Say("a"), Hang()]) as site:
        async with site.client(max_connections=3) as client, site.client() as other:
            stream = client.stream("Hi")
            with pytest.raises(AssertionError, match="1 connection slots of client 2"):
                async with no_leaks(other, client):
                    await stream.__aenter__()
            await stream.__aexit__(None, None, None)
            async with client.stream("Hi"):
                stream = client.stream("Hi")
                await stream.__aenter__()
                async with no_leaks(client):
                    await stream.__aexit__(None, None, None)  # fewer than before is not a leak


async def test_a_clients_own_transport_has_no_slots() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text="ok"))
    async with Client("https://site.test", transport=transport) as client:
        async with no_leaks(client):
            await client.ask("Hi")


async def test_an_exception_of_the_block_is_not_wrapped() -> None:
    error = ZeroDivisionError()
    left: list[socket.socket] = []
    with pytest.raises(ZeroDivisionError) as caught:
        async with no_leaks():
            left.append(socket.socket())
            raise error
    left[0].close()
    assert caught.value is error
    assert gc.isenabled()


@virtual
async def test_grace() -> None:
    async with anyio.create_task_group() as tasks:
        async with no_leaks(grace=2):
            tasks.start_soon(anyio.sleep, 1)
        began = anyio.current_time()
        with pytest.raises(AssertionError):
            async with no_leaks(grace=2):
                tasks.start_soon(anyio.sleep_forever)
        assert anyio.current_time() - began == pytest.approx(2, abs=0.02)
        tasks.cancel_scope.cancel()


async def test_a_system_that_does_not_list_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_leaks, "_LISTS_OF_DESCRIPTORS", ("/nowhere",))
    with socket.socket() as one:
        async with no_leaks():
            copy = one.dup()
        copy.close()
