"""The OpenAI endpoint, tested with OpenAI's client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from support.openai_site import HELLO, Watched, ask, asking, model_of
from support.site_wire import serving

from gprochat_anyio.site import Finish, ModelError, Turn, create_app, echo_model

openai = pytest.importorskip("openai")


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
