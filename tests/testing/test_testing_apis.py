"""Scripted sites reply in the API of each request: GPROChat's, OpenAI's or Gemini's."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from support.loops import virtual
from support.scripted_apis import (
    OPENAI,
    PARTS,
    USER,
    client_of,
    event_apis,
    events_in,
    every_api,
    raw_reply,
)

from gprochat_anyio import (
    GPROChatError,
    RateLimitError,
    ReplyInterruptedError,
    SiteConnectionError,
    SiteError,
    Usage,
)
from gprochat_anyio.testing import (
    Drop,
    Fail,
    Pause,
    Raw,
    Refuse,
    Say,
    Stop,
    live_site,
    scripted_site,
)

openai = pytest.importorskip("openai")


@virtual
@every_api
async def test_a_script_is_the_same_reply_in_every_api(api: str) -> None:
    async with scripted_site([Say("Hé"), Pause(5), Say("lo")]) as site:
        async with client_of(site, api) as client:
            for _ in range(2):
                began = anyio.current_time()
                async with client.stream("Hi") as chunks:
                    pieces = [
                        (round(anyio.current_time() - began, 6), piece) async for piece in chunks
                    ]
                assert pieces == [(0, "Hé"), (5, "lo")]
                assert chunks.finish_reason == (None if api == "gprochat" else "stop")
                assert chunks.usage is None
    assert site.connections == 1
    assert [r.outcome for r in site.requests] == ["complete", "complete"]


@virtual
@every_api
async def test_refusals(api: str) -> None:
    async with scripted_site(
        Refuse(429, "slow down", retry_after=7), [Pause(2), Refuse(503, "no", code="E")], "a"
    ) as site:
        async with client_of(site, api) as client:
            with pytest.raises(RateLimitError) as limited:
                await client.ask("Hi")
            assert (limited.value.retry_after, limited.value.site_message) == (7, "slow down")
            with pytest.raises(SiteError) as refused:
                await client.ask("Hi")
            assert (refused.value.status, refused.value.code) == (503, "E")
            assert refused.value.site_message == "no"
            assert (await client.ask("Hi")).text == "a"
    assert site.connections == 1
    assert [r.outcome for r in site.requests] == ["refused", "refused", "complete"]


@every_api
async def test_a_refusal_without_a_body(api: str) -> None:
    async with scripted_site(Refuse(429, retry_after=7)) as site, client_of(site, api) as client:
        with pytest.raises(GPROChatError) as limited:
            await client.ask("Hi")
        assert getattr(limited.value, "retry_after") == 7  # noqa: B009 - of two types


@pytest.mark.parametrize(
    ("wait", "delay"), [(7, "7s"), (0.25, "0.25s"), (100, "100s"), (1 / 3, "0.333333333s")]
)
async def test_gemini_sends_the_delay_in_its_error_too(wait: float, delay: str) -> None:
    body = json.dumps({"contents": [PARTS]}).encode()
    with scripted_site(Refuse(429, "slow", retry_after=wait), Refuse(418, "tea")) as site:
        head, (answer,) = await raw_reply(site, "gemini", body)
        assert f"Retry-After: {wait:.15g}".encode() in head
        error = json.loads(answer)["error"]
        kind = "type.googleapis.com/google.rpc.RetryInfo"
        assert error.pop("details") == [{"@type": kind, "retryDelay": delay}]
        assert error == {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED"}
        _, (answer,) = await raw_reply(site, "gemini", body)
        assert json.loads(answer)["error"]["status"] == "UNKNOWN"


@every_api
async def test_the_model_fails(api: str) -> None:
    async with scripted_site(Fail("boom"), [Say("a"), Fail("bang")], "b") as site:
        async with client_of(site, api) as client:
            with pytest.raises(SiteError, match="boom") as early:
                await client.ask("Hi")
            assert early.value.status == 500
            late = ReplyInterruptedError if api == "gprochat" else SiteError
            async with client.stream("Hi") as chunks:
                with pytest.raises(late, match="failed" if api == "gprochat" else "bang"):
                    await chunks.read()
            assert chunks.text == "a"
            assert (await client.ask("Hi")).text == "b"
        assert [r.outcome for r in site.requests] == ["failed", "failed", "complete"]
        assert site.connections <= 2


@every_api
@pytest.mark.parametrize("reset", [False, True])
async def test_a_drop_cuts_a_reply_off(api: str, reset: bool) -> None:
    drop = Drop(reset=reset)
    async with scripted_site(drop, [Say(""), drop], [Say("one"), Say("two"), drop]) as site:
        async with client_of(site, api) as client:
            with pytest.raises(SiteConnectionError):
                await client.ask("Hi")
            for text in ("", "onetwo"):
                with pytest.raises(ReplyInterruptedError) as cut:
                    await client.ask("Hi")
                assert cut.value.partial_text == text
    assert [r.outcome for r in site.requests] == ["dropped"] * 3


@every_api
async def test_half_characters_and_empty_texts(api: str) -> None:
    data = "é€".encode()
    script = [Say(""), *(Say(data[i : i + 1]) for i in range(len(data))), Say("")]
    async with scripted_site(script) as site, client_of(site, api) as client:
        async with client.stream("Hi") as chunks:
            assert [piece async for piece in chunks] == ["é", "€"]


@event_apis
@pytest.mark.parametrize("script", [[Say(b"\xff")], [Say("a"), Say(b"\xc3")]])
async def test_invalid_text_is_an_error_of_the_script(api: str, script: list[Say]) -> None:
    async with scripted_site(script) as site, client_of(site, api) as client:
        with pytest.raises(ValueError, match="not UTF-8"):
            await client.ask("Hi")
        assert site.requests[0].outcome == "left"


@event_apis
@pytest.mark.parametrize("reason", ["stop", "length"])
async def test_the_finish_reason_and_the_usage(api: str, reason: str) -> None:
    async with scripted_site([Say("a"), Stop(reason, Usage(3, 4))]) as site:
        async with client_of(site, api) as client:
            reply = await client.ask("Hi")
    assert (reply.text, reply.finish_reason, reply.usage) == ("a", reason, Usage(3, 4))
    assert site.requests[0].outcome == "complete"


@event_apis
async def test_a_filter_ends_the_reply(api: str) -> None:
    async with scripted_site([Say("a"), Stop("content_filter")], Stop("error")) as site:
        async with client_of(site, api) as client:
            async with client.stream("Hi") as chunks:
                with pytest.raises(SiteError) as filtered:
                    await chunks.read()
            assert (filtered.value.code, chunks.text) == ("content_filter", "a")
            with pytest.raises(SiteError, match="abandoned the reply"):
                await client.ask("Hi")


async def test_a_gprochat_site_cannot_send_a_finish_reason() -> None:
    async with scripted_site([Say("a"), Stop("length", Usage(3, 4))], "b") as site:
        async with site.client() as client:
            reply = await client.ask("Hi")
            assert (reply.text, reply.finish_reason, reply.usage) == ("a", None, None)
            assert (await client.ask("Hi")).text == "b"
    assert site.connections == 1


async def test_openais_events() -> None:
    body = OPENAI | {"messages": [USER], "stream_options": {"include_usage": True}}
    script = [Say("Hel"), Say("lo"), Stop(usage=Usage(3, 4))]
    with scripted_site(script) as site:
        head, chunks = await raw_reply(site, "openai", json.dumps(body).encode())
        assert b"content-type: text/event-stream" in head
        *events, usage, done = events_in(chunks)
        common = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 0, "model": "m"}
        deltas = [{"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": "lo"}, {}]
        assert events == [
            common
            | {"choices": [{"index": 0, "delta": d, "logprobs": None, "finish_reason": reason}]}
            for d, reason in zip(deltas, [None, None, None, "stop"], strict=True)
        ]
        counted = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        assert usage == common | {"choices": [], "usage": counted}
        assert done == b"[DONE]"
        body["stream_options"] = None
        _, chunks = await raw_reply(site, "openai", json.dumps(body).encode())
        assert len(chunks) == len(events) + 1  # no usage, which was not requested


async def test_geminis_events() -> None:
    with scripted_site([Say("Hello"), Stop("length", Usage(3, 4))]) as site:
        body = json.dumps({"contents": [PARTS]}).encode()
        head, chunks = await raw_reply(site, "gemini", body)
    assert b"content-type: text/event-stream" in head
    common = {"modelVersion": "gemini-flash-latest", "responseId": "scripted-0"}

    def content(text: str) -> dict[str, Any]:
        return {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}

    assert events_in(chunks) == [
        {"candidates": [content("Hello")], **common},
        {
            "candidates": [content("") | {"finishReason": "MAX_TOKENS"}],
            **common,
            "usageMetadata": {
                "promptTokenCount": 3,
                "candidatesTokenCount": 4,
                "totalTokenCount": 7,
            },
        },
    ]


@every_api
async def test_steps_after_a_raw_head(api: str) -> None:
    kind = "text/plain" if api == "gprochat" else "text/event-stream"
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
    script = [Raw(head.encode()), Say("a"), Stop()]
    async with scripted_site(script) as site, client_of(site, api) as client:
        assert (await client.ask("Hi")).text == "a"
        assert (await client.ask("Hi")).text == "a"
    assert site.connections == 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Stop(""), "Stop requires"),
        (lambda: Stop(7), "Stop requires"),  # type: ignore[arg-type]
        (lambda: Stop("stop", 7), "usage must be a Usage, not int"),  # type: ignore[arg-type]
        (lambda: scripted_site([Stop(), Say("a")]), "Stop ends a script"),
    ],
)
def test_an_invalid_stop(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)  # like its HTTP library
async def test_openais_own_client_understands_it() -> None:
    script = [Say("Hel"), Say("lo"), Stop("length", Usage(3, 4))]
    with anyio.fail_after(10):
        async with live_site(script, Refuse(429, "slow"), password="p") as site:
            url = f"{site.url}/v1"
            async with openai.AsyncOpenAI(base_url=url, api_key="p", max_retries=0) as client:

                async def ask() -> Any:
                    return await client.chat.completions.create(
                        model="m",
                        messages=[{"role": "user", "content": "Hi"}],
                        stream=True,
                        stream_options={"include_usage": True},
                    )

                events = [event async for event in await ask()]
                choices = [event.choices[0] for event in events if event.choices]
                assert "".join(c.delta.content or "" for c in choices) == "Hello"
                assert choices[-1].finish_reason == "length"
                assert events[-1].usage.total_tokens == 7
                with pytest.raises(openai.RateLimitError, match="slow"):
                    await ask()
            async with openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=0) as client:
                with pytest.raises(openai.AuthenticationError):
                    await ask()
