"""Scripted sites in memory: their records, refusals, connections and addresses."""

from __future__ import annotations

import anyio
import pytest
from support.blocked import all_tasks_blocked
from support.loops import virtual
from support.retries import ONCE

from gprochat_anyio import AuthenticationError, Client, GPROChat, ReplyInterruptedError
from gprochat_anyio.testing import Hang, Pause, Refuse, Say, scripted_site


async def test_recorded_requests() -> None:
    history = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    async with scripted_site("ok", secret_key="key", password="canary") as site:
        async with site.client(headers={"X-More": "yes"}) as client:
            await client.ask(history)
            assert await client.check_password()
        (request,) = site.requests
        assert request.messages == (("user", "a"), ("model", "b"), ("user", "c"))
        assert request.prompt == "c"
        assert (request.signature_ok, request.password_ok, request.number) == (True, True, 0)
        assert request.path == "/api/generate"
        assert request.headers["x-more"] == "yes"
        assert request.body["pass"] == "canary"
        assert "canary" not in repr(request)
        assert repr(site) == f"<MemorySite {site.url}, asked 1 times>"


async def test_it_refuses_the_requests_that_a_real_site_refuses() -> None:
    async with scripted_site("ok", secret_key="key", password="pass") as site:
        for wrong, says in (({"secret_key": "x"}, "signature"), ({"password": "x"}, "password")):
            async with site.client(**wrong) as client:
                with pytest.raises(AuthenticationError, match=says):
                    await client.ask("Hi")
        async with site.client(password="x") as client:
            assert not await client.check_password()
        assert [(r.signature_ok, r.password_ok, r.number) for r in site.requests] == [
            (False, True, -1),
            (True, False, -1),
        ]
        async with site.client() as client:
            await client.ask("Hi")
        assert site.requests[-1].number == 0
    async with scripted_site("ok", secret_key="key", password="p", strict=False) as site:
        async with Client(site.url) as client:
            assert (await client.ask("Hi")).text == "ok"
        assert not site.requests[0].signature_ok


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 500),
        (b"[]", 400),
        (b"{", 500),
        (b'{"messages": 1}', 400),
        (b'{"messages": []}', 400),
        (b'{"messages": [7, {"role": "model"}]}', 400),
        (b'{"messages": [{"role": "user", "parts": [3, {"text": "a"}]}]}', 500),
        (b'{"time": 1, "messages": [{"role": "user", "parts": [{"text": "\\ud800"}]}]}', 401),
        (b"[" * 100_000, 500),
    ],
)
async def test_odd_requests(body: bytes, status: int) -> None:
    with scripted_site("ok") as site:
        connection = site.connect()
        await connection.send(b"POST /api/generate HTTP/1.1\r\nContent-Length: ")
        await connection.send(b"%d\r\n\r\n%b" % (len(body), body))
        assert (await connection.receive()).startswith(b"HTTP/1.1 %d " % status)
        assert site.requests[0].outcome == "refused"
        connection.close()


async def test_invalid_requests() -> None:
    with scripted_site("ok") as site:
        connection = site.connect()
        await connection.send(b"nonsense\r\n\r\n")
        assert (await connection.receive()).startswith(b"HTTP/1.1 400 ")
        with pytest.raises(anyio.EndOfStream):
            await connection.receive()
        with pytest.raises(anyio.BrokenResourceError):
            await connection.send(b"more")
        connection.close()
        connection.close()
        for use in (connection.receive, lambda: connection.send(b"")):
            with pytest.raises(anyio.ClosedResourceError):
                await use()
        assert not site.requests


async def test_a_connection_by_itself() -> None:
    with scripted_site("hello") as site:
        connection = site.connect()
        received: list[bytes] = []
        async with anyio.create_task_group() as tasks:

            async def receive() -> None:
                received.append(await connection.receive(4))

            tasks.start_soon(receive)
            await all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await connection.receive()
            async with site.client() as client:
                await client.ask("Hi")
            await connection.send(b"POST /api/auth HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        assert received == [b"HTTP"]
        assert (await connection.receive(4)) == b"/1.1"
        connection.close()


@virtual
async def test_a_cancelled_read_loses_nothing() -> None:
    with scripted_site([Pause(5), Say("hello")], strict=False) as site:
        connection = site.connect()
        await connection.send(b"POST /api/generate HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        began = anyio.current_time()
        with anyio.move_on_after(2) as scope:
            await connection.receive()
        assert scope.cancelled_caught
        assert b"hello" in await connection.receive()
        assert anyio.current_time() - began == pytest.approx(5)
        connection.close()


async def test_closing_wakes_the_reader() -> None:
    with scripted_site(Hang()) as site:
        connection = site.connect()
        async with anyio.create_task_group() as tasks:

            async def receive() -> None:
                with pytest.raises(anyio.ClosedResourceError):
                    await connection.receive()

            tasks.start_soon(receive)
            await all_tasks_blocked()
            connection.close()


async def test_the_end_of_the_block_closes_the_connections() -> None:
    async with anyio.create_task_group() as tasks:
        async with scripted_site([Say("a"), Hang()]) as site:
            client = site.client(retry=ONCE)

            async def ask() -> None:
                async with client:
                    with pytest.raises(ReplyInterruptedError):
                        await client.ask("Hi")

            tasks.start_soon(ask)
            with anyio.fail_after(5):
                await site.until(lambda: site.requests)
            await all_tasks_blocked()
        assert site.requests[0].outcome == "dropped"


async def test_a_connection_of_another_event_loop_is_not_touched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with scripted_site("a") as site:
        connection = site.connect()
        monkeypatch.setattr(connection, "token", None)
        monkeypatch.setattr(connection, "wake", lambda: pytest.fail("it must not be"))
    with pytest.raises(anyio.EndOfStream):
        await connection.receive()


async def test_until() -> None:
    async with scripted_site([Say("a"), Hang()]) as site, site.client() as client:
        await site.until(lambda: True)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.ask, "Hi")
            await site.until(lambda: site.requests)
            tasks.cancel_scope.cancel()
        await site.until(lambda: not site.open_connections)
        assert site.requests[0].outcome == "left"


async def test_every_client_of_its_url_reaches_it() -> None:
    async with scripted_site("secure", url="https://chat.example.org/sub/") as site:
        assert site.url == "https://chat.example.org/sub"
        async with Client(site.url, proxy="http://proxy.example.org:3128") as client:
            assert (await client.ask("Hi")).text == "secure"
        assert site.requests[0].path == "/sub/api/generate"
        with pytest.raises(RuntimeError, match="another scripted site"):
            scripted_site("a", url="https://chat.example.org").__enter__()
    async with scripted_site("plain") as site:
        async with Client(site.url, proxy="http://proxy.example.org:3128") as client:
            assert (await client.ask("Hi")).text == "plain"
        messages = [{"role": "user", "content": "Hi"}]
        pieces = GPROChat.create_async_generator("", messages, url=site.url)
        assert [piece async for piece in pieces] == ["plain"]


async def test_two_sites_have_two_addresses() -> None:
    async with scripted_site("one") as one, scripted_site("two") as two:
        async with one.client() as first, two.client() as second:
            assert (await first.ask("Hi")).text == "one"
            assert (await second.ask("Hi")).text == "two"


def test_responses_with_an_unknown_status() -> None:
    assert Refuse(499).data == b"HTTP/1.1 499 Unknown\r\nContent-Length: 0\r\n\r\n"


async def test_an_upgrade_is_refused() -> None:
    with scripted_site("ok") as site:
        connection = site.connect()
        await connection.send(
            b"POST /api/generate HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
        )
        assert (await connection.receive()).startswith(b"HTTP/1.1 400 ")
        connection.close()


async def test_a_site_can_be_opened_once() -> None:
    async with scripted_site("ok") as site:
        with pytest.raises(RuntimeError, match="is open already"):
            async with site:
                pass
        async with site.client() as client:
            assert (await client.ask("Hi")).text == "ok"
    async with site, site.client() as client:
        assert (await client.ask("Hi")).text == "ok"
