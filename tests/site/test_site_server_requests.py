"""Requests to the site's server: scope, body, disconnection."""

from __future__ import annotations

import contextvars
from typing import Any

import anyio
import pytest
from starlette.types import Message, Receive, Scope, Send
from support.asgi_apps import GET, START, handling, ok
from support.blocked import all_tasks_blocked
from support.site_wire import connected, hosting


async def body_of(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        part: bytes = message["body"]
        body += part
        if not message["more_body"]:
            return body


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = await body_of(receive)
    await send(START)
    await send({"type": "http.response.body", "body": body})


class TestRequests:
    async def test_have_a_scope(self) -> None:
        scopes: list[Scope] = []

        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            scopes.append(scope)
            await ok(scope, receive, send)

        async with hosting(handling(handle)) as port, connected(port) as wire:
            await wire.stream.send(
                b"GET /a%20b%2F/%ff?c=%20 HTTP/1.1\r\nHost: a\r\nX-Y: z\r\n\r\n"
                b"GET http://b:80?c HTTP/1.1\r\nHost: a\r\n\r\n"
                b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"
            )
            for _ in range(3):
                assert (await wire.read()).body == b"ok"
        first, second, third = scopes
        client = first.pop("client")
        assert client[0] == "127.0.0.1"
        assert first == {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "http",
            "method": "GET",
            "path": "/a b//\ufffd",
            "raw_path": b"/a%20b%2F/%ff",
            "query_string": b"c=%20",
            "root_path": "",
            "headers": [(b"host", b"a"), (b"x-y", b"z")],
            "server": ("127.0.0.1", port),
            "state": {},
            "extensions": {"gprochat_anyio.cancels": {}},
        }
        assert (second["path"], second["query_string"]) == ("/", b"c")
        assert second["headers"] == [(b"host", b"b:80")]
        assert third["path"] == "*"

    async def test_run_in_the_context_of_the_server(self) -> None:
        variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
        seen: list[int] = []

        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(variable.get())
            variable.set(2)
            await ok(scope, receive, send)

        variable.set(1)
        async with hosting(handling(handle)) as port, connected(port) as wire:
            for _ in range(2):
                await wire.stream.send(GET)
                await wire.read()
        assert seen == [1, 1]

    async def test_receive_their_body_in_parts(self) -> None:
        go_on = anyio.Event()
        parts: list[Message] = []

        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            parts.append(await receive())
            go_on.set()
            parts.extend([await receive(), await receive()])
            await ok(scope, receive, send)

        async with hosting(handling(handle)) as port, connected(port) as wire:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            await wire.stream.send(head + b"2\r\nab\r\n")
            await go_on.wait()
            await wire.stream.send(b"1\r\nc\r\n")
            await all_tasks_blocked()
            await wire.stream.send(b"0\r\n\r\n")
            await wire.read()
        assert [(p["body"], p["more_body"]) for p in parts[:2]] == [(b"ab", True), (b"c", True)]
        assert not parts[2]["more_body"]

    async def test_100_continue(self) -> None:
        async with hosting(handling(echo)) as port, connected(port) as wire:
            head = (
                b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
            )
            await wire.stream.send(head)
            assert await wire.stream.receive() == b"HTTP/1.1 100 \r\n\r\n"
            await wire.stream.send(b"ab")
            assert (await wire.read()).body == b"ab"

    @pytest.mark.slow
    async def test_pause_for_an_application_that_reads_slowly(self) -> None:
        read = anyio.Event()
        size = 20_000_000

        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            await read.wait()
            await send(START)
            await send({"type": "http.response.body", "body": b"%d" % len(await body_of(receive))})

        async with hosting(handling(handle), body_seconds=0.2) as port, connected(port) as wire:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
            sent = False

            async def send_all() -> None:
                nonlocal sent
                await wire.stream.send(head + b"x" * size)
                sent = True

            async with anyio.create_task_group() as tg:
                tg.start_soon(send_all)
                await anyio.sleep(0.5)  # longer than a client may be silent
                assert not sent
                read.set()
            assert (await wire.read()).body == b"%d" % size

    async def test_receive_a_disconnect_after_their_response(self) -> None:
        told: list[Message] = []

        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            await body_of(receive)

            async def watch() -> None:
                told.append(await receive())

            async with anyio.create_task_group() as tg:
                tg.start_soon(watch)
                tg.start_soon(watch)
                await all_tasks_blocked()
                await ok(scope, receive, send)
            told.append(await receive())

        async with hosting(handling(handle)) as port, connected(port) as wire:
            await wire.stream.send(GET)
            await wire.read()
            await wire.stream.send(GET)  # the connection continues
            await wire.read()
            await all_tasks_blocked()
        assert told == [{"type": "http.disconnect"}] * 6

    async def test_may_run_after_their_response(self) -> None:
        left, done = anyio.Event(), anyio.Event()

        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            await ok(scope, receive, send)
            await left.wait()
            await anyio.lowlevel.checkpoint()
            done.set()

        async with hosting(handling(handle)) as port:
            async with connected(port) as wire:
                await wire.stream.send(GET)
                await wire.read()
            left.set()
            with anyio.fail_after(5):
                await done.wait()

    async def test_sending_after_a_disconnect_raises(self) -> None:
        begun, ended = anyio.Event(), anyio.Event()
        raised: list[BaseException] = []

        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                begun.set()
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    assert await receive() == {"type": "http.disconnect"}
                    with pytest.raises(OSError, match="the client has disconnected"):
                        await send(START)
                ended.set()

        async with hosting(handling(handle)) as port:
            async with connected(port) as wire:
                await wire.stream.send(GET)
                await begun.wait()
            with anyio.fail_after(5):
                await ended.wait()
        assert raised == []


async def test_a_failure_during_cancellation_affects_no_other_request() -> None:
    """On Trio, its failure and the cancellation are raised together in a group."""
    started = anyio.Event()

    async def fail_in_the_end() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            async with anyio.create_task_group() as tg:
                tg.start_soon(fail_in_the_end)
                started.set()
                await anyio.sleep_forever()
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async with hosting(app) as port:
        async with connected(port) as wire:
            await wire.stream.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await started.wait()
        async with connected(port) as wire:
            await wire.stream.send(b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await wire.read_head()).status == 204
