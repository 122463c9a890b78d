"""Real models, against servers that speak their APIs byte for byte."""

from __future__ import annotations

import importlib
import json
import logging
import sys
import traceback
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

import anyio
import pytest
from loops import VIRTUAL_LOOPS
from model_servers import END, HEAD, QUESTION, answer, chunk, event, gemini, openai, stream, told
from prompted import closed
from site_wire import connected, serving, signed
from transport import servers

pytest.importorskip("httpx_sse", exc_type=ImportError)

from gprochat_anyio import Timeouts
from gprochat_anyio.site import ModelError, Turn
from gprochat_anyio.site.models import GeminiModel, OpenAIModel
from gprochat_anyio.site.models._body import DecodedBody
from gprochat_anyio.testing import (
    Drop,
    Hang,
    Hold,
    Pause,
    Raw,
    Script,
    Step,
    at_every_checkpoint,
    live_site,
    scripted_site,
)

KEY = "sk-a-made-up-key"
Kind = type[GeminiModel] | type[OpenAIModel]
BOTH = pytest.mark.parametrize("kind", [GeminiModel, OpenAIModel])


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def model_of(kind: Kind, url: str, **options: Any) -> GeminiModel | OpenAIModel:
    if kind is GeminiModel:
        return GeminiModel(KEY, base_url=url, **options)
    return OpenAIModel(url, "llama3.2", api_key=KEY, **options)


def played(*script: bytes | Step | Hold) -> Script:
    return [Raw(step) if isinstance(step, bytes) else step for step in script]


async def asked(kind: Kind, *script: bytes | Step, **options: Any) -> Any:
    """What a model gives whose server follows a script."""
    async with live_site(played(*script), strict=False) as site:
        return await told(model_of(kind, site.url, **options)(QUESTION))


async def failed(kind: Kind, *script: bytes | Step, **options: Any) -> ModelError:
    _, _, error = await asked(kind, *script, **options)
    assert isinstance(error, ModelError)
    assert KEY not in "".join(traceback.format_exception(error))
    return error


class TestRequest:
    async def test_to_gemini(self) -> None:
        turns = (
            Turn("user", "One"),
            Turn("user", "two"),
            Turn("model", " "),
            Turn("model", "Ünï"),
            Turn("user", "three"),
        )
        requests: list[servers.Request] = []
        handler = servers.repeating(stream(gemini("Hi", "STOP")), seen=requests)
        async with servers.serving(handler) as site:
            model = GeminiModel(
                KEY,
                "models/gemini-2.5-flash",
                base_url=site.url + "/v1beta/",
                system="Be brief",
                fields={"generationConfig": {"temperature": 0}},
            )
            assert await told(model(turns)) == (["Hi"], "stop", None)
        (request,) = requests
        assert request.head.startswith(
            b"POST /v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse HTTP/1.1\r\n"
        )
        assert request.headers["x-goog-api-key"] == KEY
        assert request.headers["content-type"] == "application/json"
        assert request.headers["connection"] == "close"
        assert json.loads(request.body) == {
            "systemInstruction": {"parts": [{"text": "Be brief"}]},
            "generationConfig": {"temperature": 0},
            "contents": [
                {"role": "user", "parts": [{"text": "One\n\ntwo"}]},
                {"role": "model", "parts": [{"text": "Ünï"}]},
                {"role": "user", "parts": [{"text": "three"}]},
            ],
        }

    @pytest.mark.parametrize("key", [KEY, None, ""])
    async def test_to_openai(self, key: str | None) -> None:
        turns = (Turn("user", "One"), Turn("model", "two"), Turn("user", "three"))
        requests: list[servers.Request] = []
        handler = servers.repeating(stream(openai("Hi", "stop"), "[DONE]"), seen=requests)
        async with servers.serving(handler) as site:
            model = OpenAIModel(
                site.url + "/v1",
                "llama3.2",
                api_key=key,
                system="Be brief",
                fields={"temperature": 0, "stream": False},
            )
            assert await told(model(turns)) == (["Hi"], "stop", None)
        (request,) = requests
        assert request.head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
        assert request.headers.get("authorization") == (f"Bearer {KEY}" if key else None)
        assert json.loads(request.body) == {
            "model": "llama3.2",
            "stream": True,
            "temperature": 0,
            "messages": [
                {"role": "system", "content": "Be brief"},
                {"role": "user", "content": "One"},
                {"role": "assistant", "content": "two"},
                {"role": "user", "content": "three"},
            ],
        }

    @BOTH
    async def test_a_blank_question_is_not_asked(self, kind: Kind) -> None:
        async with live_site() as site:
            with pytest.raises(ModelError, match="blank") as raised:
                model_of(kind, site.url)((Turn("user", " \n"),))
        assert raised.value.status == 400
        assert site.connections == 0

    @BOTH
    async def test_by_a_proxy(self, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = stream(gemini("Hi", "STOP") | openai("Hi", "stop"))
        requests: list[servers.Request] = []
        async with servers.serving(servers.repeating(whole, seen=requests)) as proxy:
            at = proxy.url.removeprefix("http://")
            given = model_of(kind, "http://model.test/v1", proxy=f"http://me:pass@{at}")
            assert await told(given(QUESTION)) == (["Hi"], "stop", None)
            monkeypatch.setenv("HTTP_PROXY", f"http://me:p%40ss@{at}")
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            found = model_of(kind, "http://model.test/v1")
            assert await told(found(QUESTION)) == (["Hi"], "stop", None)
            assert "pass" not in repr(given) + repr(found)
        for request in requests:
            assert request.head.startswith(b"POST http://model.test/v1/")
        credentials = [request.headers["proxy-authorization"] for request in requests]
        assert credentials == ["Basic bWU6cGFzcw==", "Basic bWU6cEBzcw=="]


class TestSettings:
    @pytest.mark.parametrize(
        "make",
        [
            lambda: GeminiModel(""),
            lambda: GeminiModel(KEY, ""),
            lambda: GeminiModel("two words"),
            lambda: GeminiModel("a\r\nb"),
            lambda: OpenAIModel("http://127.0.0.1/v1", ""),
            lambda: OpenAIModel("127.0.0.1/v1", "m"),
            lambda: OpenAIModel("http://me:word@127.0.0.1/v1", "m"),
            lambda: OpenAIModel("http://me@127.0.0.1/v1", "m"),
            lambda: OpenAIModel("http://127.0.0.1/v1?key=word", "m"),
            lambda: OpenAIModel("http://127.0.0.1/v1#word", "m"),
            lambda: OpenAIModel("http://127.0.0.1/v1", "m", proxy="gopher://word"),
        ],
    )
    def test_that_can_not_be(self, make: Any) -> None:
        with pytest.raises(ValueError) as raised:
            make()
        assert "word" not in str(raised.value)

    @BOTH
    def test_show_no_key(self, kind: Kind) -> None:
        model = model_of(kind, "http://127.0.0.1:1/v1")
        assert KEY not in repr(model)
        assert "http://127.0.0.1:1/v1" in repr(model)

    def test_an_ipv6_proxy_of_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://[::1]:3128")
        monkeypatch.setenv("NO_PROXY", "")
        model = OpenAIModel("http://model.test/v1", "m")
        assert model._api._proxy == "http://[::1]:3128"

    @pytest.mark.parametrize("missing", ["httpx_sse", "ipaddress_"])
    def test_need_their_extra(self, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [n for n in sys.modules if n.startswith("gprochat_anyio.site.models")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, missing, None)
        if missing != "httpx_sse":
            monkeypatch.setitem(sys.modules, "gprochat_anyio.site.models._api_answers", None)
            with pytest.raises(ModuleNotFoundError, match="_answers"):
                importlib.import_module("gprochat_anyio.site.models")
            return
        with pytest.raises(ImportError, match=r"pip install 'gprochat-anyio\[models\]'"):
            importlib.import_module("gprochat_anyio.site.models")


class TestGemini:
    @pytest.mark.parametrize("eol", ["\n", "\r\n", "\r"])
    async def test_an_answer(self, eol: str) -> None:
        datas = [gemini("Hel"), gemini("lo"), gemini(" \u2028you\x85", "STOP")]
        assert await asked(GeminiModel, stream(*datas, eol=eol)) == (
            ["Hel", "lo", " \u2028you\x85"],
            "stop",
            None,
        )

    async def test_thoughts_are_left_out(self) -> None:
        parts = [{"text": "Hm", "thought": True}, {"text": "A"}, {"inlineData": {}}, {"text": "B"}]
        datas = [
            gemini(content={"role": "model", "parts": parts[:1]}),
            gemini(content={"role": "model", "parts": parts}),
            gemini("", "STOP"),
        ]
        assert await asked(GeminiModel, stream(*datas)) == (["AB"], "stop", None)

    @pytest.mark.parametrize(
        "odd",
        [
            {},
            {"candidates": []},
            {"candidates": None},
            {"candidates": [None]},
            {"candidates": [{"content": {"role": "model"}}]},
            {"candidates": [{"content": None, "finishReason": "FINISH_REASON_UNSPECIFIED"}]},
            {"usageMetadata": {"totalTokenCount": 5}},
            {"promptFeedback": {"safetyRatings": []}},
        ],
    )
    async def test_events_without_text(self, odd: Any) -> None:
        assert await asked(GeminiModel, stream(odd, gemini("a"), odd, gemini("b", "STOP"))) == (
            ["a", "b"],
            "stop",
            None,
        )

    async def test_a_blocked_prompt(self) -> None:
        blocked = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {}}
        error = await failed(GeminiModel, stream(blocked))
        assert str(error) == "The Gemini API blocked the prompt: PROHIBITED_CONTENT"
        assert (error.status, error.code) == (400, "content_filter")

    @pytest.mark.parametrize("reason", ["SAFETY", "RECITATION", "SPII", "BLOCKLIST"])
    @pytest.mark.parametrize("before", ["", "so far"])
    async def test_a_filtered_answer(self, reason: str, before: str) -> None:
        datas = [gemini(before), gemini(None, reason, finishMessage="Too\nrisky")]
        said, finish, error = await asked(GeminiModel, stream(*datas))
        assert said == ([before] if before else [])
        assert finish is None
        assert str(error) == f"The Gemini API held the answer back: {reason}: Too risky"
        assert (error.status, error.code) == (400, "content_filter")

    async def test_a_model_that_gives_up(self) -> None:
        error = await failed(GeminiModel, stream(gemini(None, "MALFORMED_FUNCTION_CALL")))
        assert str(error) == "The model gave up: MALFORMED_FUNCTION_CALL"

    async def test_a_limit_of_tokens(self) -> None:
        assert await asked(GeminiModel, stream(gemini("So", "MAX_TOKENS"))) == (
            ["So"],
            "length",
            None,
        )
        error = await failed(GeminiModel, stream(gemini(None, "MAX_TOKENS")))
        assert "limit of tokens" in str(error)

    @pytest.mark.parametrize("listed", [False, True])
    async def test_a_wrong_key(self, listed: bool) -> None:
        body: Any = {
            "error": {
                "code": 400,
                "message": f"API key not valid. Please pass a valid API key. {KEY}",
                "status": "INVALID_ARGUMENT",
                "details": [
                    {
                        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                        "reason": "API_KEY_INVALID",
                        "domain": "googleapis.com",
                    }
                ],
            }
        }
        error = await failed(GeminiModel, answer(400, [body] if listed else body))
        assert str(error) == (
            "the Gemini API refused the API key; whoever runs the model has to set GEMINI_API_KEY"
        )
        assert error.status == 500

    async def test_too_many_requests(self) -> None:
        body = {
            "error": {
                "code": 429,
                "message": "You exceeded your current quota.\n* Quota exceeded for metric: x",
                "status": "RESOURCE_EXHAUSTED",
                "details": [
                    {"@type": "type.googleapis.com/google.rpc.QuotaFailure"},
                    {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "39.5s"},
                    "odd",
                ],
            }
        }
        error = await failed(GeminiModel, answer(429, body))
        assert str(error).startswith("[429 Too Many Requests] the Gemini API asks for fewer")
        assert str(error).endswith("quota. * Quota exceeded for metric: x")
        assert (error.status, error.retry_after) == (429, 39.5)

    @pytest.mark.parametrize("before", [[], [gemini("so far")]])
    async def test_an_error_in_the_stream(self, before: list[Any]) -> None:
        body = {"error": {"code": 503, "message": "Overloaded.", "status": "UNAVAILABLE"}}
        said, _, error = await asked(GeminiModel, stream(*before, body, gemini("x", "STOP")))
        assert said == (["so far"] if before else [])
        assert str(error) == (
            "the Gemini API answered with an error: 503 Service Unavailable: Overloaded."
        )


class TestOpenAI:
    @pytest.mark.parametrize("eol", ["\n", "\r\n"])
    async def test_an_answer_with_all_that_may_come_beside_it(self, eol: str) -> None:
        usage = {**openai(), "choices": [], "usage": {"total_tokens": 9}}
        script = [
            HEAD,
            chunk(f": OPENROUTER PROCESSING{eol}{eol}: ping{eol}".encode()),
            chunk(event(openai("", role="assistant"), eol)),
            chunk(event(openai(role="assistant", content=None, reasoning_content="Hm"), eol)),
            chunk(f"id: 7{eol}event: message{eol}retry: 5{eol}data:{eol}{eol}".encode()),
            chunk(event(openai("Hel"), eol)),
            chunk(f"id: 8{eol}data{eol}{eol}:{eol}".encode()),
            chunk(event(openai("lo"), eol)),
            chunk(event(openai(None, "stop"), eol)),
            chunk(event(usage, eol)),
            chunk(event({**usage, "choices": None}, eol)),
            chunk(event("[DONE]", eol)),
            END,
        ]
        assert await asked(OpenAIModel, *script) == (["Hel", "lo"], "stop", None)

    async def test_data_of_several_lines(self) -> None:
        lines = json.dumps(openai("Hi", "stop"), indent=2).split("\n")
        data = "".join(f"data: {line}\n" for line in lines).encode() + b"\n"
        assert await asked(OpenAIModel, HEAD + chunk(data) + END) == (["Hi"], "stop", None)

    async def test_every_split(self) -> None:
        whole = b"\xef\xbb\xbf" + b"".join(
            event(data, "\r\n") for data in (openai("é🙂"), openai("\u2028.", "stop"), "[DONE]")
        )
        scripts: list[Script] = [
            played(HEAD + chunk(whole[:n]), anyio.wait_all_tasks_blocked, chunk(whole[n:]) + END)
            for n in range(1, len(whole), 7)
        ]
        scripts.append(Raw(HEAD + b"".join(chunk(bytes([byte])) for byte in whole) + END))
        async with live_site(*scripts, strict=False) as site:
            model = OpenAIModel(site.url, "m")
            for _ in scripts:
                said, reason, error = await told(model(QUESTION))
                assert ("".join(said), reason, error) == ("é🙂\u2028.", "stop", None)

    async def test_the_end_does_not_wait_for_the_server(self) -> None:
        whole = HEAD + chunk(event(openai("Hi", "stop")) + event("[DONE]"))
        assert await asked(OpenAIModel, whole, Hang()) == (["Hi"], "stop", None)

    @pytest.mark.parametrize(
        ("reason", "finish"),
        [("length", "length"), ("tool_calls", "stop"), ("eos", "stop"), ("stop", "stop")],
    )
    async def test_finish_reasons(self, reason: str, finish: str) -> None:
        whole = stream(openai("Hi"), openai(None, reason), "[DONE]")
        assert await asked(OpenAIModel, whole) == (["Hi"], finish, None)

    async def test_a_filtered_answer(self) -> None:
        whole = stream(openai("Hi"), openai(None, "content_filter"), "[DONE]")
        said, _, error = await asked(OpenAIModel, whole)
        assert said == ["Hi"]
        assert error.code == "content_filter"

    async def test_failures_that_are_a_reason(self) -> None:
        assert "gave up" in str(await failed(OpenAIModel, stream(openai("Hi", "error"), "[DONE]")))
        assert "limit of tokens" in str(await failed(OpenAIModel, stream(openai("", "length"))))

    async def test_the_old_llama_cpp_error_that_is_no_event(self) -> None:
        odd = b'error: {"code":400,"message":"context size exceeded"}\n\n'
        body = HEAD + chunk(event(openai("Hi")) + odd + event("[DONE]")) + END
        said, _, error = await asked(OpenAIModel, body)
        assert said == ["Hi"]
        assert "without a finish reason" in str(error)

    @pytest.mark.parametrize(
        ("data", "status", "message"),
        [
            (
                {"error": {"message": "too long", "type": "BadRequestError", "code": 400}},
                400,
                "400 Bad Request: too long",
            ),
            ({"error": "boom"}, 500, "500 Internal Server Error: boom"),
            ({"error": {"message": "m", "code": 599}}, 500, "599: m"),
            ({"error": {"message": None, "code": True}}, 500, "500 Internal Server Error"),
            (
                {"error": {"message": "slow down", "type": "rate_limit_error", "code": None}},
                429,
                "asks for fewer requests: slow down",
            ),
        ],
    )
    @pytest.mark.parametrize("before", [[], [openai("so far")]])
    async def test_an_error_in_the_stream(
        self, data: Any, status: int, message: str, before: list[Any]
    ) -> None:
        said, _, error = await asked(OpenAIModel, stream(*before, data, "[DONE]"))
        assert said == (["so far"] if before else [])
        assert error.status == status
        assert str(error).endswith(message)

    @pytest.mark.parametrize(
        "data", ['{"message": "boom"}', "boom", '{"error": {"message":"boom"}}']
    )
    async def test_an_error_by_the_event_s_name(self, data: str) -> None:
        body = HEAD + chunk(f"event: error\ndata: {data}\n\n".encode()) + END
        assert "boom" in str(await failed(OpenAIModel, body)) or data.startswith('{"message')

    @pytest.mark.parametrize("data", ["oops", "[1]", "{", "[" * 100_000])
    async def test_an_event_that_can_not_be_read(self, data: str) -> None:
        error = await failed(OpenAIModel, stream(data))
        assert "no JSON" in str(error)

    @pytest.mark.parametrize(
        ("body", "status", "said"),
        [
            (
                {"error": {"message": "Incorrect API key provided: sk-a-ma**"}},
                401,
                "OPENAI_API_KEY",
            ),
            ({"error": "denied"}, 403, "OPENAI_API_KEY"),
            (
                {"error": {"message": 'model "x" not found, try pulling'}},
                404,
                'model "x" not found',
            ),
            ({"object": "error", "message": "is not of type", "code": 400}, 400, "is not of type"),
            ({"detail": "Not Found"}, 404, "404 Not Found"),
            ("<html>", 502, "502 Bad Gateway"),
            ({"error": {"message": "x" * 2000}}, 500, "xxx…"),
            ({"error": {"message": f"key {KEY} is odd\x1b"}}, 400, "key *** is odd"),
            ([], 500, "500 Internal"),
        ],
    )
    async def test_an_error(self, body: Any, status: int, said: str) -> None:
        error = await failed(OpenAIModel, answer(status, body))
        assert said in str(error)
        assert len(str(error)) < 700
        assert str(error).isprintable()

    @pytest.mark.parametrize("field", ["Retry-After: 7", "X: y"])
    async def test_too_many_requests(self, field: str) -> None:
        body = {"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}
        error = await failed(OpenAIModel, answer(429, body, field))
        assert str(error).startswith("[429 Too Many Requests] ")
        assert error.retry_after == (7 if field.startswith("R") else None)


class TestBrokenAnswers:
    @BOTH
    @pytest.mark.parametrize("end", [Drop(), Drop(reset=True), END, b"zz\r\n"])
    @pytest.mark.parametrize("before", [b"", b"data: {"])
    async def test_that_end_early(self, kind: Kind, end: Drop | bytes, before: bytes) -> None:
        data = event(gemini("Hi") | {"choices": openai("Hi")["choices"]}) + before
        ends = [end] if isinstance(end, Drop) else [end, Drop()]
        said, reason, error = await asked(kind, HEAD + chunk(data), *ends)
        assert said in (["Hi"], [])  # a reset may overtake what was sent
        assert reason is None
        assert "broke off" in str(error) or "can not be reached" in str(error)

    @BOTH
    async def test_before_the_head(self, kind: Kind) -> None:
        error = await failed(kind, Drop())
        assert "can not be reached at http://127.0.0.1:" in str(error)
        assert error.status == 503

    @BOTH
    async def test_nothing_listens(self, kind: Kind) -> None:
        async with live_site() as site:
            pass
        _, _, error = await told(model_of(kind, site.url)(QUESTION))
        assert error is not None
        assert "can not be reached at http://127.0.0.1:" in str(error)
        assert "refused" in str(error)

    @BOTH
    @pytest.mark.parametrize(
        ("head", "said"),
        [
            (answer(200, "<html>", kind="text/html"), "text/html and not with a stream"),
            (answer(200, {}), "application/json and not"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "a body of no type"),
            (answer(307, "", "Location: http://evil.test/"), "redirect"),
        ],
    )
    async def test_that_are_no_stream(self, kind: Kind, head: bytes, said: str) -> None:
        assert said in str(await failed(kind, head))

    @BOTH
    async def test_an_error_that_does_not_end(self, kind: Kind) -> None:
        head = b"HTTP/1.1 500 E\r\nContent-Length: 999999\r\n\r\n"
        assert "500" in str(await failed(kind, head + b"x" * 70_000, Hang()))
        assert "500" in str(await failed(kind, head, Drop()))

    async def test_a_line_that_does_not_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gprochat_anyio.site.models._body.EVENT_LIMIT", 1000)
        error = await failed(OpenAIModel, HEAD, *[chunk(b"x" * 400)] * 3, Hang())
        assert "does not end" in str(error)

    async def test_many_lines_are_no_long_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("gprochat_anyio.site.models._body.EVENT_LIMIT", 400)
        datas = [openai("x")] * 5
        said, _, error = await asked(OpenAIModel, stream(*datas, openai(None, "stop")))
        assert (len(said), error) == (5, None)


PING = chunk(b": ping\n\n")
HI = chunk(event(openai("Hi")))


class TestTimeouts:
    @pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)
    @pytest.mark.parametrize(
        ("script", "phase", "limit"),
        [
            ([Hang()], "first_chunk", 20),
            ([HEAD, Hang()], "first_chunk", 20),
            ([HEAD + PING, Pause(15), PING, Pause(15)], "first_chunk", 20),
            ([HEAD + HI, Pause(15), PING, Pause(15)], "idle", 20),
            ([HEAD, *[HI, Pause(15)] * 9], "total", 100),
            ([b"HTTP/1.1 500 E\r\nContent-Length: 9\r\n\r\n", Hang()], "first_chunk", 20),
        ],
    )
    async def test_end_a_silence(self, script: list[Any], phase: str, limit: int) -> None:
        timeouts = Timeouts(first_chunk=20, idle=20, total=100)
        async with scripted_site(played(*script), strict=False) as site:
            model = OpenAIModel(site.url, "m", timeouts=timeouts)
            texts = model(QUESTION)
            error = None
            try:
                async for _ in texts:
                    pass
            except ModelError as raised:
                error = raised
        assert str(error) == (
            f"the model's server did not answer in time: {phase} took more than {limit} s"
        )
        assert isinstance(error, ModelError)
        assert error.status == 504

    @pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)
    async def test_do_not_count_the_site_s_own_clients(self) -> None:
        script = played(HEAD, *[HI] * 3, chunk(event(openai(None, "stop"))) + END)
        async with scripted_site(script, strict=False) as site:
            model = OpenAIModel(site.url, "m", timeouts=Timeouts(idle=20))
            said = []
            async for text in model(QUESTION):
                said.append(text)
                await anyio.sleep(30)
        assert "".join(said) == "HiHiHi"


class TestLeaving:
    """A client that leaves closes the connection to the model at once."""

    @BOTH
    @pytest.mark.parametrize("when", ["before the head", "before the text", "after it"])
    async def test_stops_the_request(
        self, kind: Kind, when: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING)
        text = event(gemini("Hi") | {"choices": openai("Hi")["choices"]})
        sent = {"before the head": b"", "before the text": HEAD, "after it": HEAD + chunk(text)}
        asked_for = anyio.Event()

        async def note() -> None:
            asked_for.set()

        script = played(sent[when], note, Hang())
        async with live_site(script, strict=False) as upstream:
            async with serving(model_of(kind, upstream.url)) as port:
                async with connected(port) as wire:
                    await wire.send(signed())
                    await asked_for.wait()
                    if when == "after it":
                        await wire.read_head()
                        assert await wire.read_chunk() == b"Hi"
                    assert upstream.open_connections == 1
                await closed(upstream)
        assert caplog.text == ""

    @BOTH
    async def test_at_whatever_point(self, kind: Kind) -> None:
        both = gemini("Hi", "STOP") | {"choices": openai("Hi", "stop")["choices"]}
        done = [chunk(event("[DONE]"))] if kind is OpenAIModel else []
        script = played(HEAD, chunk(event(both)), *done, END)
        async with scripted_site(script, strict=False) as upstream:
            model = model_of(kind, upstream.url)
            for cancel in at_every_checkpoint(twice=True):
                await cancel(lambda: told(model(QUESTION)))
                await anyio.wait_all_tasks_blocked()
                assert upstream.open_connections == 0, cancel
            assert upstream.connections > 10

    @BOTH
    async def test_closing_the_iterator(self, kind: Kind) -> None:
        text = event(gemini("Hi") | {"choices": openai("Hi")["choices"]})
        async with live_site(played(HEAD + chunk(text), Hang()), strict=False) as upstream:
            texts = cast("AsyncGenerator[str]", model_of(kind, upstream.url)(QUESTION))
            async with aclosing(texts):
                assert await anext(texts) == "Hi"
            await closed(upstream)


def test_the_body_hands_itself_out() -> None:
    class Response:
        headers: Any = None
        stream: Any = None

    class Stream:
        def __aiter__(self) -> Any:
            return self

    response = Response()
    response.stream = Stream()
    body = DecodedBody(cast("Any", response))
    assert body.aiter_text() is body
    assert aiter(body) is body


@pytest.mark.parametrize(("coding", "known"), [("gzip", False), ("Identity", True)])
async def test_an_answer_that_is_compressed(coding: str, known: bool) -> None:
    whole = stream(openai("Hi", "stop"), "[DONE]")
    whole = whole.replace(b"Cache-Control: no-cache", f"Content-Encoding: {coding}".encode())
    async with live_site([Raw(whole)], strict=False) as site:
        said, reason, error = await told(OpenAIModel(site.url, "m")(QUESTION))
    assert (said, reason) == ((["Hi"], "stop") if known else ([], None))
    assert known or "answered in gzip, unasked" in str(error)
