"""ASGI's lifespan protocol in the site's server."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest
from starlette.types import Message, Receive, Scope, Send
from support.blocked import all_tasks_blocked
from support.site_wire import connected, hosting

from gprochat_anyio.site import _lifespan

COMPLETE: Message = {"type": "lifespan.startup.complete"}


async def respond(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(scope["state"]).encode()})


def with_lifespan(lifespan: Any) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(scope, receive, send)
        else:
            await respond(scope, receive, send)

    return app


async def answer(port: int) -> bytes:
    async with connected(port) as wire:
        await wire.stream.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        return (await wire.read()).body


async def test_from_startup_to_shutdown() -> None:
    told: list[str] = []

    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["n"] = 1
        told.append((await receive())["type"])
        await send(COMPLETE)
        told.append((await receive())["type"])
        await anyio.lowlevel.checkpoint()
        await send({"type": "lifespan.shutdown.complete"})
        told.append("down")

    async with hosting(with_lifespan(lifespan)) as port:
        assert told == ["lifespan.startup"]
        assert await answer(port) == b"{'n': 1}"
    assert told == ["lifespan.startup", "lifespan.shutdown", "down"]


async def unknown(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("only requests are known here")


async def returning(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()


@pytest.mark.parametrize("lifespan", [unknown, returning])
async def test_an_application_without_lifespan_support_is_served(
    lifespan: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosting(with_lifespan(lifespan)) as port:
        assert await answer(port) == b"{}"
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("message", "said"),
    [({}, "failed: no message"), ({"message": "Traceback\n  ...\nOSError: no disk\n"}, "no disk")],
)
async def test_a_startup_that_fails(message: dict[str, str], said: str) -> None:
    failure = OSError("no disk")

    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.failed", **message})
        raise failure

    with pytest.raises(ExceptionGroup) as raised:  # the test's own group
        async with hosting(with_lifespan(lifespan)):
            raise AssertionError
    errors = raised.value.exceptions
    assert [type(error) for error in errors] == [RuntimeError]
    assert "startup failed" in str(errors[0])
    assert said in str(errors[0])
    assert errors[0].__cause__ is failure


async def test_a_shutdown_that_fails() -> None:
    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        await send(COMPLETE)
        await receive()
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "no disk"})

    until = anyio.Event()
    with pytest.raises(ExceptionGroup) as raised:
        async with hosting(with_lifespan(lifespan), until=until):
            until.set()
    assert str(raised.value.exceptions[0]) == "the app's shutdown failed: no disk"


async def test_a_lifespan_that_fails_during_serving(caplog: pytest.LogCaptureFixture) -> None:
    fail = anyio.Event()

    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        await send(COMPLETE)
        await fail.wait()
        raise ValueError("canary")

    async with hosting(with_lifespan(lifespan)) as port:
        fail.set()
        await all_tasks_blocked()
        assert await answer(port) == b"{}"
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert said == ["the app's lifespan failed: ValueError"]


@pytest.mark.parametrize("heedless", [False, True])
async def test_a_slow_shutdown_is_cut_off(heedless: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lifespan, "SHUTDOWN_SECONDS", 0.05)

    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        await send(COMPLETE)
        for _ in range(3 if heedless else 2):  # there is no third event
            await receive()
        await anyio.sleep_forever()

    with anyio.fail_after(5):
        async with hosting(with_lifespan(lifespan)):
            pass


async def test_cancelled_during_startup() -> None:
    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep_forever()

    with anyio.move_on_after(0.05) as scope:
        async with hosting(with_lifespan(lifespan)):
            raise AssertionError
    assert scope.cancelled_caught
