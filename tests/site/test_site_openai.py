"""The OpenAI endpoint, tested with OpenAI's client and with plain sockets."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from support.blocked import all_tasks_blocked
from support.loops import VIRTUAL_LOOPS
from support.prompted import closed
from support.site_wire import Seen, connected, serving

from gprochat_anyio import Retry, Timeouts
from gprochat_anyio.site import Finish, ModelError, Turn, create_app, echo_model
from gprochat_anyio.site import _chat_completion as completion
from gprochat_anyio.testing import Drop, Hang, Raw, Refuse, Reply, Say, Step, live_site

openai = pytest.importorskip("openai")

HELLO = [{"role": "user", "content": "Hello you"}]


@asynccontextmanager
async def client_of(port: int, key: str = "unused", **options: Any) -> AsyncIterator[Any]:
    """Return OpenAI's client, with httpx's connections on every event loop."""
    http = openai.DefaultAsyncHttpxClient(trust_env=False)
    url = f"http://127.0.0.1:{port}/v1"
    with anyio.fail_after(10):
        async with openai.AsyncOpenAI(
            api_key=key, base_url=url, http_client=http, max_retries=0, **options
        ) as client:
            yield client


def request(body: Any = None, path: str = "/v1/chat/completions", *, key: str = "") -> bytes:
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = [
        f"{'GET' if body is None else 'POST'} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/json; charset=utf-8",
        f"Content-Length: {len(data)}",
    ]
    if key:
        fields.append(f"Authorization: {key}")
    return "\r\n".join(fields).encode() + b"\r\n\r\n" + data


def asking(**fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": HELLO, **fields}


async def ask(port: int, *given: Any, **options: Any) -> Seen:
    async with connected(port) as wire:
        await wire.stream.send(request(*given, **options))
        return await wire.read()


def model_of(*steps: Any) -> Any:
    """Return a model that yields texts, awaits functions and raises errors, in order."""

    async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        for step in steps:
            if isinstance(step, str):
                yield step
            elif isinstance(step, Exception):
                raise step
            else:
                await step()

    return model


class Watched:
    """A model that yields `before`, then waits forever, with events for its start and end."""

    def __init__(self, *before: str) -> None:
        self.started = anyio.Event()
        self.stopped = anyio.Event()
        self._before = before

    async def __call__(self, turns: tuple[Turn, ...]) -> AsyncIterator[str]:
        try:
            for text in self._before:
                yield text
            self.started.set()
            await anyio.sleep_forever()
        finally:
            self.stopped.set()


# Warnings about generators that OpenAI's client and httpx leave to the garbage collector.
@pytest.mark.filterwarnings("ignore:Async generator '(openai|httpx|httpcore)")
class TestOpenAIsClient:
    @pytest.mark.slow
    async def test_a_stream(self) -> None:
        async with serving(echo_model) as port, client_of(port) as client:
            async with await client.chat.completions.create(
                model="gpt-4o", messages=HELLO, stream=True, stream_options={"include_usage": True}
            ) as chunks:
                *got, last = [chunk async for chunk in chunks]
        assert last.choices == []
        assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (3, 3)
        assert {c.usage for c in got} == {None}
        assert [c.choices[0].delta.content for c in got] == ["", "Hello ", "you", None]
        assert [c.choices[0].delta.role for c in got] == ["assistant", None, None, None]
        assert [c.choices[0].finish_reason for c in got] == [None, None, None, "stop"]
        assert {c.object for c in got} == {"chat.completion.chunk"}
        assert len({c.id for c in got}) == 1
        assert got[0].id.startswith("chatcmpl-")
        assert {c.model for c in got} == {"gprochat"}

    async def test_a_whole_reply(self) -> None:
        async with serving(echo_model) as port, client_of(port) as client:
            answer = await client.chat.completions.create(
                model="gpt-4o", messages=HELLO, temperature=0, max_tokens=5, seed=1
            )
        assert answer.object == "chat.completion"
        (choice,) = answer.choices
        assert (choice.message.role, choice.message.content) == ("assistant", "Hello you")
        assert answer.usage.to_dict() == {
            "prompt_tokens": 3,  # an estimate: the model reports no usage
            "completion_tokens": 3,
            "total_tokens": 6,
        }
        assert choice.finish_reason == "stop"

    async def test_the_models(self) -> None:
        app = create_app(echo_model, model_name="echo/1")
        async with serving(app) as port, client_of(port) as client:
            listed = [model async for model in client.models.list()]
            assert [m.id for m in listed] == ["echo/1"]
            assert (await client.models.retrieve("echo/1")).object == "model"
            with pytest.raises(openai.NotFoundError, match="only model here is 'echo/1'"):
                await client.models.retrieve("gpt-4o")

    async def test_a_history(self) -> None:
        seen: list[tuple[Turn, ...]] = []

        async def model(turns: tuple[Turn, ...]) -> AsyncIterator[str]:
            seen.append(turns)
            yield "ok"

        messages = [
            {"role": "developer", "content": "Be brief"},
            {"role": "user", "content": [{"type": "text", "text": "One"}]},
            {"role": "assistant", "content": None, "tool_calls": []},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": ""},
            {"role": "user", "content": "three"},
        ]
        async with serving(model) as port, client_of(port) as client:
            await client.chat.completions.create(model="m", messages=messages)
        assert seen == [
            (Turn("user", "Be brief\n\nOne"), Turn("model", "two"), Turn("user", "three"))
        ]

    @pytest.mark.parametrize(
        ("options", "key"),
        [
            ({"passwords": ["word", "ключ"]}, "word"),
            ({"passwords": ["word"], "secret_key": "k"}, "word"),
            ({"secret_key": "k"}, "k"),
            ({}, "anything"),
        ],
    )
    async def test_the_key_is_the_password(self, options: dict[str, Any], key: str) -> None:
        async with serving(create_app(echo_model, **options)) as port:
            async with client_of(port, key) as client:
                await client.chat.completions.create(model="m", messages=HELLO)
            if not options:
                return
            for wrong in ("sk-made-up", "k" if key != "k" else "word"):
                async with client_of(port, wrong) as client:
                    with pytest.raises(openai.AuthenticationError) as raised:
                        await client.chat.completions.create(model="m", messages=HELLO)
                    assert raised.value.code == "invalid_api_key"
                    assert "made-up" not in str(raised.value)
                    with pytest.raises(openai.AuthenticationError):
                        await client.models.list()

    @pytest.mark.parametrize("streamed", [False, True])
    @pytest.mark.parametrize(
        ("error", "kind", "code"),
        [
            (ModelError("refused"), "InternalServerError", None),
            (
                ModelError("busy", status=429, retry_after=6.5),
                "RateLimitError",
                "rate_limit_exceeded",
            ),
            (ModelError("long", status=400), "BadRequestError", None),
            (
                ModelError("x", status=400, code="content_filter"),
                "BadRequestError",
                "content_filter",
            ),
            (ModelError("down", status=503), "InternalServerError", None),
        ],
    )
    async def test_a_refusal(
        self, error: ModelError, kind: str, code: str | None, streamed: bool
    ) -> None:
        async with serving(model_of(error)) as port, client_of(port) as client:
            with pytest.raises(getattr(openai, kind)) as raised:
                await client.chat.completions.create(model="m", messages=HELLO, stream=streamed)
        assert raised.value.status_code == error.status
        assert raised.value.code == code
        assert raised.value.body["message"] == str(error)
        assert raised.value.response.headers.get("retry-after") == (
            "7" if error.status == 429 else None
        )

    async def test_a_failure_in_the_stream(self, caplog: pytest.LogCaptureFixture) -> None:
        async with serving(model_of("so", " far", ModelError("secret"))) as port:
            async with client_of(port) as client:
                said = []
                with pytest.raises(openai.APIError, match="secret"):
                    async for chunk in await client.chat.completions.create(
                        model="m", messages=HELLO, stream=True
                    ):
                        said.append(chunk.choices[0].delta.content)  # noqa: PERF401 - kept on failure
            assert said == ["", "so", " far"]
            seen = await ask(port, asking(stream=True))
        assert b"[DONE]" not in seen.body
        assert b'"finish_reason":"stop"' not in seen.body
        assert json.loads(seen.chunks[-1].removeprefix(b"data: ")) == {
            "error": {"message": "secret", "type": "server_error", "param": None, "code": None}
        }
        assert "interrupted" in caplog.text
        assert "secret" not in caplog.text

    async def test_a_failure_of_a_whole_reply(self) -> None:
        async with serving(model_of("so far", ValueError("secret"))) as port:
            seen = await ask(port, asking())
        assert seen.status == 500
        assert b"The model failed." in seen.body
        assert b"so far" not in seen.body

    @pytest.mark.parametrize("streamed", [False, True])
    @pytest.mark.parametrize(
        ("steps", "reason"),
        [
            (["so far", Finish("length")], "length"),
            (["so far", Finish("stop")], "stop"),
            (["so far", ModelError("x", status=400, code="content_filter")], "content_filter"),
            (["so far", ""], "stop"),
            ([], "stop"),
        ],
    )
    async def test_finish_reasons(self, steps: list[Any], reason: str, streamed: bool) -> None:
        async with serving(model_of(*steps)) as port, client_of(port) as client:
            answer = await client.chat.completions.create(
                model="m", messages=HELLO, stream=streamed
            )
            if streamed:
                got = [chunk async for chunk in answer]
                text = "".join(c.choices[0].delta.content or "" for c in got)
                told = got[-1].choices[0].finish_reason
            else:
                text = answer.choices[0].message.content
                told = answer.choices[0].finish_reason
        assert (text, told) == ("so far" if steps else "", reason)

    async def test_leaving_a_stream(self) -> None:
        model = Watched("so far")
        async with serving(model) as port, client_of(port) as client:
            chunks = await client.chat.completions.create(model="m", messages=HELLO, stream=True)
            async with chunks:
                await anext(chunks)
                await anext(chunks)
            with anyio.fail_after(5):
                await model.stopped.wait()


class TestRequests:
    @pytest.mark.parametrize(
        ("body", "said", "param"),
        [
            (b"{", "not JSON", None),
            (b"", "not JSON", None),
            (b"\xff", "not JSON", None),
            (b"[" * 100_000, "not JSON", None),
            ([], "not a JSON object", None),
            ({"messages": None}, "list", "messages"),
            ({"messages": []}, "list", "messages"),
            ({"messages": "Hi"}, "list", "messages"),
            ({"messages": [1]}, "message", "messages"),
            ({"messages": [None, *HELLO]}, "message", "messages"),
            ({"messages": [{"role": "user"}]}, "message", "messages"),
            ({"messages": [{"role": "user", "content": " "}]}, "blank", "messages"),
            ({"messages": [{"role": "assistant", "content": "a"}]}, "last", "messages"),
            ({"messages": [{"role": "tool", "content": "a"}, *HELLO]}, "role", "messages"),
            ({"messages": [{"role": "user", "content": "\ud800"}]}, "surrogate", "messages"),
            (
                {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
                "not supported",
                "messages",
            ),
            (asking(stream="yes"), "true or false", "stream"),
            (asking(stream=1), "true or false", "stream"),
            (asking(n=2), "one text", "n"),
            (asking(tools=[{"type": "function"}]), "one text", "tools"),
            (asking(response_format={"type": "json_object"}), "one text", "response_format"),
            (asking(logprobs=True), "one text", "logprobs"),
            (asking(modalities=["audio"]), "one text", "modalities"),
        ],
    )
    async def test_invalid_requests(self, body: Any, said: str, param: str | None) -> None:
        async with serving(echo_model) as port:
            seen = await ask(port, body)
        assert seen.status == 400
        error = json.loads(seen.body)["error"]
        assert said in error["message"]
        assert error["type"] == "invalid_request_error"
        assert error["param"] == param

    async def test_default_parameters(self) -> None:
        asked = asking(
            n=1,
            tools=[],
            logprobs=False,
            modalities=["text"],
            response_format={"type": "text"},
            stream=None,
            audio=None,
        )
        async with serving(echo_model) as port:
            assert (await ask(port, asked)).status == 200

    @pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
    async def test_content_types_of_foreign_web_pages(self, kind: str) -> None:
        sent = request(asking()).replace(b"application/json; charset=utf-8", kind.encode())
        async with serving(echo_model) as port, connected(port) as wire:
            await wire.stream.send(sent)
            seen = await wire.read()
        assert seen.status == 400
        assert b"application/json" in seen.body

    @pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/", "/v1/chat/completions/"])
    async def test_unknown_paths(self, path: str) -> None:
        async with serving(echo_model) as port:
            seen = await ask(port, {}, path)
        assert seen.status == 404
        assert json.loads(seen.body)["error"]["code"] == "unknown_url"

    @pytest.mark.parametrize("key", ["", "Basic word", "Bearer", "Bearer  ", "word", "Bearer wor"])
    @pytest.mark.parametrize(
        "path", ["/v1/chat/completions", "/v1/models", "/v1/models/x", "/v1/x"]
    )
    async def test_without_the_key(self, key: str, path: str) -> None:
        async with serving(create_app(echo_model, passwords=["word"])) as port:
            body = asking() if path.endswith("completions") else None
            seen = await ask(port, body, path, key=key)
            assert (seen.status, seen.headers["www-authenticate"]) == (401, "Bearer")
            right = await ask(port, body, path, key="bearer word")
        assert right.status in (200, 404)


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


@pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)
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


class TestGateway:
    @pytest.mark.parametrize(
        ("script", "status", "said"),
        [
            ("Hi", 200, '"content":"Hi"'),
            ("", 200, '"content":""'),
            (Drop(), 503, "the model behind this site: "),
            (
                [Raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"), Drop()],
                500,
                "text/html",
            ),
            (Refuse(429, retry_after=9), 429, "[429 Too Many Requests]"),
            (Refuse(401, "Invalid signature. "), 500, "GPROCHAT_UPSTREAM_SECRET_KEY"),
            ([Say("Hi"), Drop()], 500, "broke off"),
        ],
    )
    async def test_errors_of_the_site_behind(self, script: Reply, status: int, said: str) -> None:
        async with (
            live_site(script) as upstream,
            upstream.client(retry=Retry(attempts=1)) as client,
            serving(client) as port,
        ):
            seen = await ask(port, asking())
        assert (seen.status, said in seen.body.decode()) == (status, True)
        assert seen.headers.get("retry-after") == ("9" if status == 429 else None)

    async def test_a_silent_site(self) -> None:
        async with (
            live_site(Hang()) as upstream,
            upstream.client(timeouts=Timeouts(total=0.01)) as client,
            serving(client) as port,
        ):
            assert (await ask(port, asking())).status == 504


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


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "none"},
        {"functions": [{"name": "f"}], "function_call": "none"},
    ],
)
async def test_disabled_tools_are_accepted(fields: Any) -> None:
    async with serving(echo_model) as port:
        assert (await ask(port, asking(**fields))).status == 200
        seen = await ask(port, asking(**{**fields, "tool_choice": "auto", "function_call": "auto"}))
    assert seen.status == 400


@pytest.mark.parametrize(
    "silent",
    [
        {"role": "assistant", "tool_calls": [{"id": "1", "type": "function"}]},
        {"role": "assistant", "content": []},
        {"role": "assistant", "content": [{"type": "text", "text": " "}]},
        {"role": "system", "content": [{"type": "text", "text": ""}]},
    ],
)
async def test_blank_messages_are_omitted(silent: Any) -> None:
    async with serving(echo_model) as port:
        seen = await ask(port, asking(messages=[silent, *HELLO]))
    assert (seen.status, b"Hello you" in seen.body) == (200, True)


@pytest.mark.parametrize(
    "message",
    [{"role": "user"}, {"role": "user", "content": ["", 1]}, {"role": "user", "content": 0}],
)
async def test_invalid_messages_are_refused(message: Any) -> None:
    async with serving(echo_model) as port:
        assert (await ask(port, asking(messages=[message, *HELLO]))).status == 400
