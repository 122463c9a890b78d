"""The site's server, with correct and faulty applications."""

from __future__ import annotations

import contextvars
import logging
from typing import Any

import anyio
import pytest
from starlette.types import Message, Receive, Scope, Send
from support.blocked import all_tasks_blocked
from support.site_wire import connected, hosting

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
START: Message = {"type": "http.response.start", "status": 200, "headers": []}
END: Message = {"type": "http.response.body", "body": b"ok"}


def part(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


def handling(handle: Any) -> Any:
    """Return an application that calls its handler with each request."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await handle(scope, receive, send)

    return app


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    await send(START)
    await send(END)


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


class TestResponses:
    async def test_to_head_have_no_body(self) -> None:
        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            await send({**START, "headers": [(b"content-length", b"2")]})
            await send(END)

        async with hosting(handling(handle)) as port, connected(port) as wire:
            await wire.stream.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
            assert (await wire.read_head()).headers["content-length"] == "2"
            assert (await wire.read()).body == b"ok"

    async def test_to_http_1_0_end_with_the_connection(self) -> None:
        async with hosting(handling(ok)) as port, connected(port) as wire:
            await wire.stream.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            seen = await wire.read_head()
            assert seen.headers["connection"] == "close"
            assert await wire.read_to_close() == b"ok"

    async def test_before_the_end_of_a_body_arrive_whole(self) -> None:
        """The body is never read. Closing the connection immediately would reset it."""
        async with hosting(handling(ok)) as port, connected(port) as wire:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n"
            await wire.stream.send(head + b"x" * 100_000)
            assert (await wire.read()).body == b"ok"
            assert await wire.read_to_close() == b""

    async def test_are_sent_as_fast_as_the_client_reads(self) -> None:
        size = 10_000_000
        sent = 0

        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal sent
            await send(START)
            for _ in range(10):
                await send(part(b"x" * (size // 10)))
                sent += 1
            await send({"type": "http.response.body"})

        async with hosting(handling(handle)) as port, connected(port) as wire:
            await wire.stream.send(GET)
            await wire.read_head()
            await all_tasks_blocked()
            assert sent < 10
            received = await wire.read_chunk()
            while chunk := await wire.read_chunk():
                received += chunk
            assert len(received) == size

    async def test_let_other_tasks_run(self) -> None:
        """Even if the client reads so fast that sending never waits."""
        stop = anyio.Event()

        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            await send(START)
            while not stop.is_set():
                await send(part(b""))
            await send(END)

        async with hosting(handling(handle)) as port, connected(port) as wire:
            await wire.stream.send(GET)
            await wire.read_head()
            stop.set()
            assert await wire.read_chunk() == b"ok"

    async def test_of_draining_servers_close_the_connection(self) -> None:
        begun, until = anyio.Event(), anyio.Event()

        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            begun.set()
            await until.wait()
            await all_tasks_blocked()
            await ok(scope, receive, send)

        with anyio.fail_after(5):
            async with hosting(handling(handle), until=until) as port, connected(port) as wire:
                await wire.stream.send(GET + GET)
                await begun.wait()
                until.set()
                seen = await wire.read()
                assert (seen.body, seen.headers["connection"]) == (b"ok", "close")
                assert await wire.read_to_close() == b""


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond nothing."""


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError("canary")


async def failing_in_a_group(scope: Scope, receive: Receive, send: Send) -> None:
    async with anyio.create_task_group() as tg:
        tg.start_soon(failing, scope, receive, send)


async def invalid(scope: Scope, receive: Receive, send: Send) -> None:
    await send({**START, "headers": [(b"x", b"a\r\nb: c")]})
    await send(END)


async def bodiless(scope: Scope, receive: Receive, send: Send) -> None:
    await send(END)


async def begun_twice(scope: Scope, receive: Receive, send: Send) -> None:
    await send(START)
    await send(START)


async def unfinished(scope: Scope, receive: Receive, send: Send) -> None:
    await send(START)
    await send(part(b"so far"))


async def failing_late(scope: Scope, receive: Receive, send: Send) -> None:
    await unfinished(scope, receive, send)
    raise ValueError("canary")


async def too_long(scope: Scope, receive: Receive, send: Send) -> None:
    await send({**START, "headers": [(b"content-length", b"1")]})
    await send(part(b"a"))
    await send(END)


async def too_long_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    await send({**START, "headers": [(b"content-length", b"1")]})
    await send(END)


async def too_short(scope: Scope, receive: Receive, send: Send) -> None:
    await send({**START, "headers": [(b"content-length", b"3")]})
    await send(END)


async def tunnelling(scope: Scope, receive: Receive, send: Send) -> None:
    await send(START)
    await send(part(b"a"))


@pytest.mark.parametrize(
    ("app", "error"),
    [
        (silent, None),
        (failing, "ValueError"),
        (failing_in_a_group, "ExceptionGroup"),
        (invalid, "LocalProtocolError"),
        (bodiless, "RuntimeError"),
        (begun_twice, "RuntimeError"),
    ],
)
async def test_invalid_responses_are_errors(
    app: Any, error: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosting(handling(app)) as port, connected(port) as wire:
        for _ in range(2):
            await wire.stream.send(GET)
            seen = await wire.read()
            assert (seen.status, seen.body) == (500, b"Internal Server Error")
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert said == ([] if error is None else [f"a request failed: {error}"] * 2)
    assert "canary" not in caplog.text


@pytest.mark.parametrize(
    "app", [unfinished, failing_late, too_long, too_long_at_once, too_short, tunnelling]
)
async def test_an_incomplete_response_closes_the_connection(
    app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    method = b"CONNECT b:80" if app is tunnelling else b"GET /"
    async with hosting(handling(app)) as port:
        async with connected(port) as wire:
            await wire.stream.send(method + b" HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
            received = await wire.read_to_close()
            assert received.count(b"HTTP/1.1") <= 1
            assert not received.endswith(b"0\r\n\r\n")
    assert "canary" not in caplog.text


async def test_nothing_follows_a_complete_response() -> None:
    raised: list[Exception] = []

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await ok(scope, receive, send)
        try:
            await send(END)
        except RuntimeError as error:
            raised.append(error)

    async with hosting(handling(handle)) as port, connected(port) as wire:
        await wire.stream.send(GET)
        await wire.read()
        await wire.stream.send(GET)
        assert (await wire.read()).body == b"ok"
    assert "complete" in str(raised[0])


async def test_only_one_task_sends_a_response() -> None:
    raised = anyio.Event()

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        async with anyio.create_task_group() as tg:

            async def send_much() -> None:
                await send(part(b"a" * 20_000_000))

            tg.start_soon(send_much)
            await all_tasks_blocked()
            with pytest.raises(RuntimeError, match="another task"):
                await send(part(b"b"))
            raised.set()

    async with hosting(handling(handle)) as port, connected(port) as wire:
        await wire.stream.send(GET)
        with anyio.fail_after(5):
            await raised.wait()


async def test_a_cancelled_send_closes_the_connection() -> None:
    cancelled = anyio.Event()

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        with anyio.move_on_after(0.05):
            try:
                await send(part(b"a" * 20_000_000))
            finally:
                cancelled.set()
        await send(END)

    async with hosting(handling(handle)) as port, connected(port) as wire:
        await wire.stream.send(GET)
        with anyio.fail_after(5):
            await cancelled.wait()  # A client that reads would take all of it before the deadline.
            await wire.read_head()
            assert not (await wire.read_to_close()).endswith(b"0\r\n\r\n")


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
