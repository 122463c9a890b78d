"""Streams of the OpenAI endpoint: disconnections, silent models, and cancelled ones."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import anyio
import pytest
from support.blocked import all_tasks_blocked
from support.loops import virtual
from support.openai_site import Watched, asking, model_of, request
from support.prompted import closed
from support.site_wire import connected, serving

from gprochat_anyio.site import ModelError, Turn, create_app
from gprochat_anyio.site import _chat_completion as completion
from gprochat_anyio.testing import Hang, Say, Step, live_site


class TestDisconnecting:
    """A client that disconnects cancels the model; with plain sockets."""

    @pytest.mark.parametrize("streamed", [False, True])
    @pytest.mark.parametrize("before", [(), ("some", "text")])
    async def test_stops_the_model(
        self, before: tuple[str, ...], streamed: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING)
        model = Watched(*before)
        async with serving(model) as port:
            async with connected(port) as wire:
                await wire.stream.send(request(asking(stream=streamed)))
                await model.started.wait()
            with anyio.fail_after(5):
                await model.stopped.wait()
        assert caplog.text == ""

    async def test_while_a_full_buffer_is_not_read(self) -> None:
        stopped = anyio.Event()

        async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
            try:
                while True:
                    yield "x" * 100_000
            finally:
                stopped.set()

        async with serving(model) as port:
            async with connected(port) as wire:
                await wire.stream.send(request(asking(stream=True)))
                await wire.read_head()
                await all_tasks_blocked()
            with anyio.fail_after(5):
                await stopped.wait()

    @pytest.mark.parametrize("sent", [[], [Say("")], [Say("Hi")]])
    @pytest.mark.parametrize("streamed", [False, True])
    async def test_stops_the_site_behind_the_gateway(
        self, sent: list[Step], streamed: bool
    ) -> None:
        asked = anyio.Event()

        async def note() -> None:
            asked.set()

        async with (
            live_site([*sent, note, Hang()]) as upstream,
            upstream.client() as client,
            serving(client) as port,
        ):
            async with connected(port) as wire:
                await wire.stream.send(request(asking(stream=streamed)))
                await asked.wait()
                if streamed and Say("Hi") in sent:
                    await wire.read_head()
                    await wire.read_chunk()
                    assert b'"Hi"' in await wire.read_chunk()
                assert upstream.open_connections == 1
            await closed(upstream)


class Exchange:
    """An ASGI server for one request. It collects the application's events."""

    def __init__(self, **fields: Any) -> None:
        self.gone = anyio.Event()
        self.sent: list[Any] = []
        self._body = json.dumps(asking(stream=True, **fields)).encode()

    async def receive(self) -> Any:
        body, self._body = self._body, b""
        if body:
            return {"type": "http.request", "body": body}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: Any) -> None:
        await anyio.lowlevel.checkpoint()
        self.sent.append(event)

    async def run(self, model: Any) -> None:
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": "/v1/chat/completions",
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
            "query_string": b"",
        }
        await create_app(model)(scope, self.receive, self.send)

    @property
    def bodies(self) -> list[bytes]:
        return [event["body"] for event in self.sent[1:]]


@virtual
class TestSilence:
    async def test_is_filled_with_comments(self) -> None:
        async def pause() -> None:
            await anyio.sleep(2 * completion.KEEP_ALIVE_SECONDS + 1)

        exchange = Exchange()
        await exchange.run(model_of(pause, "so", pause, " far"))
        kinds = [body.split(b"\n")[0][:12] for body in exchange.bodies]
        comment, data = b": keep-alive", b'data: {"id":'
        assert kinds == [
            *(data, comment, comment),  # the first event has the role
            *(data, comment, comment),
            *(data, data, b"data: [DONE]", b""),
        ]

    async def test_turns_a_later_refusal_into_an_event(self) -> None:
        async def pause() -> None:
            await anyio.sleep(completion.KEEP_ALIVE_SECONDS + 1)

        exchange = Exchange()
        await exchange.run(model_of(pause, ModelError("busy", status=429)))
        assert exchange.sent[0]["status"] == 200
        *_, failure, end = exchange.bodies
        assert json.loads(failure.removeprefix(b"data: "))["error"]["type"] == "rate_limit_error"
        assert end == b""


async def test_a_failing_send_cancels_the_model() -> None:
    model = Watched("so", " far")

    class Left(Exchange):
        async def send(self, event: Any) -> None:
            await super().send(event)
            if len(self.sent) == 3:
                raise BrokenPipeError

    await Left().run(model)
    assert model.stopped.is_set()


@pytest.mark.parametrize("before", [(), ("so far",)])
async def test_a_model_that_something_else_cancels_is_not_a_complete_reply(
    before: tuple[str, ...], anyio_backend_name: str
) -> None:
    if anyio_backend_name == "trio":
        pytest.skip("only asyncio can cancel what no scope of ours is around")

    async def cancelled() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    class AtOnce(Exchange):
        async def send(self, event: Any) -> None:  # without a checkpoint, as if the socket had room
            self.sent.append(event)

    exchange = AtOnce()
    with suppress(asyncio.CancelledError):
        await exchange.run(model_of(*before, cancelled))
    assert b'"finish_reason":"stop"' not in b"".join(exchange.bodies)
    assert all(event.get("more_body", True) for event in exchange.sent)
