"""Responses of the site's server, by correct and faulty applications."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest
from starlette.types import Receive, Scope, Send
from support.asgi_apps import END, GET, START, handling, ok, part
from support.blocked import all_tasks_blocked
from support.site_wire import connected, hosting


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
