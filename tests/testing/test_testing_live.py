"""Scripted sites on a real socket."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream, SocketStream
from anyio.lowlevel import checkpoint
from support.blocked import all_tasks_blocked
from support.retries import ONCE

from gprochat_anyio import Client, ReplyInterruptedError, SiteConnectionError
from gprochat_anyio.testing import (
    Drop,
    Hang,
    Hold,
    Pause,
    Refuse,
    Request,
    Say,
    Script,
    Step,
    live_site,
    no_leaks,
    scripted_site,
)
from gprochat_anyio.testing._live_site import _give_out
from gprochat_anyio.testing._scripted_site import ScriptedSite


async def test_replies() -> None:
    script = [Say("Hel"), Pause(0.01), Say("lo")]
    with anyio.fail_after(10):
        async with live_site(script, password="p") as site, site.client() as client:
            assert (await client.ask("Hi")).text == "Hello"
            assert await client.check_password()
            assert (await client.ask("Hi")).text == "Hello"
            assert site.connections == 1
            assert site.requests[1].prompt == "Hi"


@pytest.mark.parametrize("reset", [False, True])
async def test_drops(reset: bool) -> None:
    with anyio.fail_after(10):
        async with live_site([Say("a"), Drop(reset=reset)], Drop(reset=reset)) as site:
            async with Client(site.url, retry=ONCE) as client:
                with pytest.raises((ReplyInterruptedError, SiteConnectionError)):
                    await client.ask("Hi")
                with pytest.raises(SiteConnectionError):
                    await client.ask("Hi")
            await site.until(lambda: not site.open_connections)


async def test_it_reports_that_the_client_leaves() -> None:
    with anyio.fail_after(10):
        async with live_site([Say("a"), Hang()]) as site, site.client() as client:
            async with client.stream("Hi") as chunks:
                await chunks.receive()
            await site.until(lambda: not site.open_connections)
            assert site.requests[0].outcome == "left"


async def test_a_client_that_stops_reading_and_one_that_resets() -> None:
    def endless(request: Request) -> Script:
        return (Say("x" * 65536) for _ in iter(int, 1))

    body = b'{"messages": [{"role": "user", "parts": [{"text": "a"}]}]}'
    with anyio.fail_after(10):
        async with live_site(endless, strict=False) as site:
            port = int(site.url.rpartition(":")[2])
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                await stream.send(b"POST /api/generate HTTP/1.1\r\n")
                await stream.send(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
                await stream.receive()
            await site.until(lambda: not site.open_connections)  # closed with data unread: a reset
            assert site.requests[0].outcome == "left"


async def test_a_client_that_has_left_before_its_connection_is_accepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def has_left(accepted: socket.socket) -> SocketStream:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    with anyio.fail_after(10):
        async with live_site("whole") as site, site.client(retry=ONCE) as client:
            with monkeypatch.context() as patch:
                patch.setattr(SocketStream, "from_socket", has_left)
                with pytest.raises(SiteConnectionError):
                    await client.ask("Hi")
            assert (await client.ask("Hi")).text == "whole"


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [3, 1_000_000])
async def test_clients_that_leave_while_the_site_speaks(pieces: int) -> None:
    def reset_behind(request: Request) -> Iterator[Step | Hold]:
        for _ in range(pieces):
            yield Say("x")
            yield checkpoint
        yield Drop(reset=True)

    with anyio.fail_after(10):
        async with live_site(reset_behind) as site:
            for _ in range(50):
                async with site.client() as client, client.stream("Hi") as chunks:
                    await chunks.receive()
            await site.until(lambda: not site.open_connections)


async def test_the_end_of_the_block_closes_everything() -> None:
    with anyio.fail_after(10):
        async with no_leaks():
            stream: SocketStream
            async with live_site(Hang()) as site:
                port = int(site.url.rpartition(":")[2])
                stream = await anyio.connect_tcp("127.0.0.1", port)
                await site.until(lambda: site.open_connections)
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()
            await stream.aclose()
            with pytest.raises(OSError):
                await anyio.connect_tcp("127.0.0.1", port)


async def test_an_exception_of_the_block_is_not_wrapped() -> None:
    error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError) as caught:
        async with live_site("a"):
            raise error
    assert caught.value is error
    with pytest.raises(pytest.fail.Exception):
        async with live_site("a"):
            pytest.fail("as tests do")


async def test_a_cancellation_of_the_block() -> None:
    with anyio.CancelScope() as scope:
        async with live_site("a"):
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.parametrize("where", ["asked", "played"])
async def test_an_exception_of_a_function_is_raised_at_the_end(where: str) -> None:
    async def broken_step() -> None:
        raise ZeroDivisionError

    def broken(request: Request) -> Script:
        raise ZeroDivisionError

    with anyio.fail_after(10):
        with pytest.raises(ZeroDivisionError):
            async with live_site(broken if where == "asked" else [broken_step]) as site:
                async with site.client(retry=ONCE) as client:
                    with pytest.raises(SiteConnectionError):
                        await client.ask("Hi")


async def test_a_given_port() -> None:
    async with live_site(Refuse(500)) as site:
        port = int(site.url.rpartition(":")[2])
    async with live_site("a", port=port) as site:
        assert site.url == f"http://127.0.0.1:{port}"
        with pytest.raises(OSError):
            async with live_site("b", port=port):
                pytest.fail("the port is taken")


class Gone(ByteStream):
    """A connection that its client has reset: AnyIO then provides no socket, or no addresses."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def send(self, item: bytes) -> None:
        raise anyio.BrokenResourceError

    async def receive(self, max_bytes: int = 65536) -> bytes:
        raise anyio.BrokenResourceError

    async def send_eof(self) -> None: ...

    async def aclose(self) -> None: ...

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        raise self.error


@pytest.mark.parametrize("error", [OSError(107, "not connected"), AttributeError("getpeername")])
@pytest.mark.parametrize(("reply", "outcome"), [("a", "left"), (Drop(reset=True), "dropped")])
async def test_a_client_that_has_reset_when_the_script_goes_on(
    error: Exception, reply: Script, outcome: str
) -> None:
    async with scripted_site(reply, strict=False) as site:
        connection = site.connect()
        await connection.send(b"POST /api/generate HTTP/1.1\r\n\r\n")
        await _give_out(connection, Gone(error))  # type: ignore[arg-type] # raises nothing
        connection.close()
    assert site.requests[0].outcome == outcome


async def test_its_own_tasks_are_not_a_leak() -> None:
    with anyio.fail_after(10):
        async with live_site("Hello") as site, no_leaks(grace=5):
            async with site.client() as client:
                await client.ask("Hi")


async def test_until_notices_changes_by_a_thread(
    live_gprochat_site: Callable[..., ScriptedSite],
) -> None:
    site = live_gprochat_site("Hello")
    with anyio.fail_after(10):
        async with site.client() as client, anyio.create_task_group() as tasks:
            tasks.start_soon(site.until, lambda: site.requests)
            await all_tasks_blocked()
            await client.ask("Hi")
        await site.until(lambda: not site.open_connections)
