"""Responses to a model's texts and failures; with the ASGI application alone."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import anyio
import pytest
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from support.blocked import all_tasks_blocked
from support.loops import virtual
from support.site_wire import signed

from gprochat_anyio._wire.gprochat import FAILURE_MARKER, GENERATE_PATH
from gprochat_anyio.site import Model, ModelError, Turn, create_app, echo_model, offline_model

Event = MutableMapping[str, Any]


class Exchange:
    """An ASGI server for one request. It collects the application's events."""

    def __init__(self, *events: Event) -> None:
        whole = {"type": "http.request", "body": signed("secret"), "more_body": False}
        self._events = list(events) or [whole]
        self.gone = anyio.Event()
        self.sent: list[Event] = []

    async def receive(self) -> Event:
        if self._events:
            return self._events.pop(0)
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: Event) -> None:
        await anyio.lowlevel.checkpoint()
        self.sent.append(event)

    async def run(
        self,
        model: Any = None,
        *,
        path: str = GENERATE_PATH,
        app: Any = None,
        fields: Any = (),
    ) -> None:
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "headers": [(b"host", b"127.0.0.1"), *fields],
            "query_string": b"",
        }
        with anyio.fail_after(100):
            await (app or create_app(model))(scope, self.receive, self.send)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def texts(self) -> list[bytes]:
        return [event["body"] for event in self.sent[1:] if event["body"]]


async def test_a_model_without_text() -> None:
    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        return
        yield ""

    exchange = Exchange()
    await exchange.run(model)
    assert (exchange.status, exchange.texts) == (200, [])


async def test_a_refusal_contains_its_reason() -> None:
    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        raise ModelError("[429 Too Many Requests] Квота \ud800")
        yield ""

    exchange = Exchange()
    await exchange.run(model)
    assert exchange.status == 500
    body = '{"error":{"code":"Error","message":"[429 Too Many Requests] Квота \\ud800"}}'
    assert exchange.texts == [body.encode()]


async def failing(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
    raise RuntimeError(turns[-1].text)
    yield ""


async def failing_group(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
    raise ExceptionGroup("", [ValueError(turns[-1].text)])
    yield ""


async def no_text(turns: tuple[Turn, ...]) -> AsyncIterator[Any]:
    yield 1


async def half_a_surrogate_pair(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
    yield "\ud83d"


def failing_at_once(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
    raise KeyError(turns[-1].text)


def no_iterable(turns: tuple[Turn, ...]) -> Any:
    return turns[-1].text


@pytest.mark.parametrize(
    "model", [failing, failing_group, no_text, half_a_surrogate_pair, failing_at_once, no_iterable]
)
async def test_a_failure_does_not_reveal_its_cause(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = Exchange()
    await exchange.run(model)
    assert exchange.status == 500
    assert exchange.texts == [b'{"error":{"code":"Error","message":"The model failed."}}']
    (record,) = caplog.records
    assert record.name == "gprochat_anyio.site"
    assert record.levelno == logging.ERROR
    assert re.search("Error at |ExceptionGroup at |it yielded |it returned ", record.getMessage())
    assert "secret" not in caplog.text


@pytest.mark.parametrize("error", [ModelError("secret"), ValueError("secret")])
async def test_a_failure_after_the_first_text(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        yield "so far"
        raise error

    exchange = Exchange()
    await exchange.run(model)
    assert exchange.status == 200
    assert exchange.texts == [b"so far", FAILURE_MARKER]
    assert exchange.sent[-1]["more_body"]  # so the server sends no last chunk
    browser = Exchange()
    await browser.run(model, fields=[(b"user-agent", b"Mozilla/5.0 (X11; Linux)")])
    assert browser.texts == exchange.texts
    assert browser.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert "interrupted" in caplog.text
    assert "secret" not in caplog.text


async def test_a_model_need_not_be_a_generator() -> None:
    class Texts:
        def __init__(self, turns: tuple[Turn, ...]) -> None:
            self._texts = iter([turns[-1].text])

        def __aiter__(self) -> Texts:
            return self

        async def __anext__(self) -> str:
            for text in self._texts:
                return text
            raise StopAsyncIteration

    exchange = Exchange()
    await exchange.run(Texts)
    assert exchange.texts == [b"secret"]


async def test_the_model_is_closed_when_the_client_disconnects_during_send() -> None:
    closed = anyio.Event()

    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        try:
            yield "so far"
        finally:
            # Cleaning up may take a while.
            await anyio.lowlevel.checkpoint()
            closed.set()

    class Stuck(Exchange):
        async def send(self, event: Event) -> None:
            self.gone.set()
            await anyio.sleep_forever()

    await Stuck().run(model)
    assert closed.is_set()


@virtual
async def test_the_time_to_clean_up_is_limited(caplog: pytest.LogCaptureFixture) -> None:
    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        try:
            yield "so far"
        finally:
            await anyio.sleep_forever()

    class Left(Exchange):
        async def send(self, event: Event) -> None:
            raise BrokenPipeError

    await Left().run(model)
    assert "more than 1 s to close" in caplog.text


async def test_a_model_that_fails_to_close(caplog: pytest.LogCaptureFixture) -> None:
    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        try:
            yield "so far"
        finally:
            raise ValueError(turns[-1].text)

    class Left(Exchange):
        async def send(self, event: Event) -> None:
            raise BrokenPipeError

    await Left().run(model)
    assert "failed to close: ValueError at " in caplog.text
    assert "secret" not in caplog.text


async def test_a_client_that_disconnects_within_its_body() -> None:
    part = {"type": "http.request", "body": b"{", "more_body": True}
    exchange = Exchange(part, {"type": "http.disconnect"})
    await exchange.run()
    assert exchange.sent == []


async def test_a_body_in_pieces() -> None:
    body = signed("piecemeal")
    parts = [
        {"type": "http.request", "body": body[i : i + 1], "more_body": True}
        for i in range(len(body))
    ]
    exchange = Exchange(*parts, {"type": "http.request"})
    await exchange.run(offline_model)
    assert b"".join(exchange.texts).endswith(b"You said: piecemeal")


@virtual
@pytest.mark.parametrize("size", [1, 1000])
async def test_a_body_that_does_not_end(size: int) -> None:
    class Endless(Exchange):
        async def receive(self) -> Event:
            await anyio.sleep(1)
            return {"type": "http.request", "body": b" " * size, "more_body": True}

        async def send(self, event: Event) -> None:
            await anyio.sleep(5)  # the body that arrives meanwhile is still read
            await super().send(event)

    exchange = Endless()
    await exchange.run(app=create_app(body_limit=500))
    told = b"too large" if size == 1000 else b"took too long"
    assert exchange.status == (413 if size == 1000 else 408)
    assert told in exchange.texts[0]


async def test_the_end_of_a_response_is_not_cancelled() -> None:
    class Tidy(Exchange):
        """A server that reports a disconnect at the end of the response, during `send`."""

        tidied = False

        async def send(self, event: Event) -> None:
            await super().send(event)
            if not event.get("more_body", True):
                self.gone.set()
                await all_tasks_blocked()
                self.tidied = True

    exchange = Tidy()
    await exchange.run(lambda turns: offline_model(turns, delay=0))
    assert exchange.tidied


async def test_other_routes_of_the_app_keep_working() -> None:
    async def texts() -> AsyncIterator[str]:
        yield "streamed"

    async def streamed(request: Any) -> StreamingResponse:
        return StreamingResponse(texts())

    async def echoed(request: Any) -> PlainTextResponse:
        return PlainTextResponse(await request.body())

    app = create_app()
    app.router.routes += [Route("/streamed", streamed, methods=["POST"])]
    app.router.routes += [Route("/echoed", echoed, methods=["POST"])]
    for path, text in [("/streamed", b"streamed"), ("/echoed", signed("secret"))]:
        exchange = Exchange()
        await exchange.run(app=app, path=path)
        assert (exchange.status, exchange.texts) == (200, [text])


async def test_offline_model() -> None:
    async def answer(text: str) -> list[str]:
        return [word async for word in offline_model((Turn("user", text),), delay=0)]

    words = await answer(" Hello,\n  world ")
    assert words[:2] == ["This", " is"]
    assert "".join(words).endswith("it runs no language model. You said: Hello,\n  world")
    assert await answer("") == await answer(" \n") == []


@virtual
async def test_offline_model_yields_its_first_text_immediately() -> None:
    texts = offline_model((Turn("user", "Hello"),), delay=3600)
    assert await anext(texts) == "This"
    with pytest.raises(TimeoutError), anyio.fail_after(3599):
        await anext(texts)


async def test_middleware_may_modify_messages() -> None:
    class Marks:
        """Middleware that modifies messages, as those for cookies, compression and CORS do."""

        def __init__(self, app: Any) -> None:
            self._app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def mark(message: Event) -> None:
                if message["type"] == "http.response.start":
                    message["headers"].append((b"set-cookie", b"session=theirs"))
                elif not message["more_body"]:
                    message["body"] = b"trailer"
                await send(message)

            await self._app(scope, receive, mark)

    marked = create_app(echo_model)
    marked.add_middleware(Marks)
    asked = {"messages": [{"role": "user", "content": "Hello"}], "stream": True}
    completion = {"type": "http.request", "body": json.dumps(asked).encode(), "more_body": False}
    for path, events, fields in [
        (GENERATE_PATH, [], []),
        ("/v1/chat/completions", [completion], [(b"content-type", b"application/json")]),
    ]:
        theirs, ours = Exchange(*events), Exchange(*events)
        await theirs.run(app=marked, path=path, fields=fields)
        await ours.run(echo_model, path=path, fields=fields)
        assert theirs.texts[-1] == b"trailer"
        assert b"set-cookie" not in dict(ours.sent[0]["headers"])
        assert ours.sent[-1]["body"] == b""
