"""OpenAI's batch files: requests that are sent or refused, and lines of the output."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from gprochat_anyio import Client, Fleet, Retry, Usage
from gprochat_anyio.batch import BatchSummary, OutputError, run_batch
from gprochat_anyio.batch import _journal as journal_module
from gprochat_anyio.batch._records import line_of_error, record_of_line
from gprochat_anyio.testing import Drop, Refuse, Request, Say, Script, Stop, scripted_site

BOUND = 20.0
MODEL = "llama3.2"


@pytest.fixture(autouse=True)
def _quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "TICK", 0.001)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "requests.jsonl"


def request(custom_id: Any = "a", **body: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": MODEL, "messages": messages, **body},
    }


def lines(path: Path) -> dict[Any, dict[str, Any]]:
    return {line["custom_id"]: line for line in map(json.loads, path.read_bytes().splitlines())}


async def run(client: Client | Fleet, source: Any, out: Path, **options: Any) -> BatchSummary:
    with anyio.fail_after(BOUND):
        return await run_batch(client, source, out, format="openai", **options)


def count(out: Path) -> int:
    return len(out.read_bytes().splitlines())


def write(source: Path, *requests: Any) -> Path:
    source.write_text("".join(json.dumps(one) + "\n" for one in requests))
    return source


def respond(_: Request) -> Script:
    return Say("Hello"), Stop("length", Usage(5, 2))


class TestRequests:
    async def test_are_sent_with_the_fields_of_their_body(self, source: Path, out: Path) -> None:
        write(
            source,
            request("a", max_tokens=7, temperature=0, stream=False, n=1),
            request("b", temperature=None),
        )
        async with scripted_site(respond) as site:
            fields = {"temperature": 1, "seed": 3}
            async with site.openai_client(MODEL, fields=fields) as client:
                summary = await run(client, source, out, max_at_once=1)
        assert summary.all_answered
        first, second = (dict(one.body) for one in site.requests)
        assert (first["max_tokens"], first["temperature"], first["seed"]) == (7, 0, 3)
        assert (second["seed"], "temperature" in second) == (3, False)
        for body in (first, second):
            assert (body["model"], body["stream"]) == (MODEL, True)
            assert [one["role"] for one in body["messages"]] == ["system", "user"]

    async def test_of_text_parts_and_of_items(self, out: Path) -> None:
        parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
        items = [request("a", messages=[{"role": "user", "content": parts, "name": None}])]
        async with scripted_site(respond) as site, site.openai_client(MODEL) as client:
            await run(client, items, out)
        assert site.requests[0].prompt == "one two"

    @pytest.mark.parametrize(
        ("made", "said"),
        [
            (request(5), 'give "custom_id"'),
            (request(""), 'give "custom_id"'),
            (request() | {"method": "GET"}, '"method" must be "POST"'),
            (request() | {"url": "/v1/embeddings"}, '"url" must be "/v1/chat/completions"'),
            (request() | {"body": []}, '"body" must be an object'),
            (request(messages="Hi"), '"body" must be an object with a list "messages"'),
            (request(messages=[]), "has no user message"),
            (request(messages=["Hi"]), "a message must be a Message or"),
            (request(stream=True), '"stream" of the body'),
            (request(n=2), '"n" of the body'),
            (request(tools=[{"type": "function"}]), '"tools" of the body'),
            (request(logprobs=True), '"logprobs" of the body'),
            (request(modalities=["text", "audio"]), '"modalities" of the body'),
            (request(messages=[{"role": "user", "content": "Hi", "name": "x"}]), "has more than"),
            (request(model="gpt-4o"), "names another model than the client's, llama3.2"),
            ("[]", "not a JSON object"),
        ],
    )
    async def test_invalid_requests_are_refused_with_a_reason(
        self, source: Path, out: Path, made: Any, said: str
    ) -> None:
        write(source, made, request("good"))
        async with scripted_site(respond) as site, site.openai_client(MODEL) as client:
            summary = await run(client, source, out)
        assert (summary.answered, summary.failed) == (1, 1)
        bad = next(line for line in lines(out).values() if line["response"] is None)
        assert bad["error"]["code"] == "InvalidPromptError"
        assert said in bad["error"]["message"]
        assert len(site.requests) == 1

    @pytest.mark.parametrize("kind", ["gprochat", "gemini", "in process"])
    async def test_with_fields_are_refused_by_other_apis(self, out: Path, kind: str) -> None:
        async def model(_: Any) -> AsyncIterator[str]:
            yield "Hello"

        plain = request("plain")
        del plain["body"]["model"]
        async with scripted_site(respond) as site:
            made = {
                "gprochat": site.client,
                "gemini": site.gemini_client,
                "in process": lambda: Client.of(model),
            }
            async with made[kind]() as client:
                await run(client, [plain, request("a", top_p=1)], out)
        assert "only OpenAI's API" in lines(out)["a"]["error"]["message"]
        assert "model, top_p" in lines(out)["a"]["error"]["message"]
        body = lines(out)["plain"]["response"]["body"]
        assert body["choices"][0]["message"]["content"] == "Hello"
        assert (body["model"], body["choices"][0]["finish_reason"]) != ("", None)

    async def test_reach_the_endpoints_of_a_fleet(self, out: Path) -> None:
        async with scripted_site(respond) as site:
            async with Fleet([site.openai_client(MODEL)]) as fleet:
                await run(fleet, [request(max_tokens=5)], out)
        assert site.requests[0].body["max_tokens"] == 5


class TestLines:
    async def test_of_replies(self, source: Path, out: Path) -> None:
        async with scripted_site(respond) as site, site.openai_client(MODEL) as client:
            await run(client, write(source, request("a")), out)
        line = lines(out)["a"]
        assert line.keys() == {
            "id", "custom_id", "response", "error", "index", "key", "site",
        }  # fmt: skip
        assert line["id"] == f"batch_req_{line['key'][:32]}"
        assert (line["error"], line["response"]["status_code"]) == (None, 200)
        assert line["response"]["request_id"].startswith("req_")
        body = line["response"]["body"]
        assert (body["object"], body["model"]) == ("chat.completion", MODEL)
        assert body["choices"] == [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "length",
            }
        ]
        assert body["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        types = pytest.importorskip("openai.types.chat")
        types.ChatCompletion.model_validate(body, strict=True)

    async def test_of_failures(self, source: Path, out: Path) -> None:
        def failing(asked: Request) -> Script:
            return (
                Refuse(400, "no", code="bad") if asked.body["seed"] == 1 else [Say("half"), Drop()]
            )

        write(source, request("a", seed=1), request("b", seed=2))
        async with scripted_site(failing) as site, site.openai_client(MODEL) as client:
            await run(client, source, out)
        refused, broken = lines(out)["a"], lines(out)["b"]
        assert (refused["response"]["status_code"], refused["error"]) == (400, None)
        error = refused["response"]["body"]["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "bad")
        assert broken["response"] is None
        assert broken["error"]["code"] == "ReplyInterruptedError"
        assert broken["error"]["partial_text"] == "half"

    async def test_are_continued(self, source: Path, out: Path) -> None:
        """Ask a request again if its id or any field of its body has changed."""
        write(source, request("a"), request("b"), request("c", seed=1), '{"custom_id": 1}')
        retry = Retry(attempts=1)
        works = False
        async with scripted_site(lambda one: respond(one) if works else Refuse(500, "no")) as site:
            async with site.openai_client(MODEL, retry=retry) as client:
                assert (await run(client, source, out)).failed == 4
                works = True
                assert (await run(client, source, out)).failed_before == 4
                summary = await run(client, source, out, retry_failed=True)
                assert (summary.answered, summary.failed) == (3, 1)
                write(source, request("b"), request("a"), request("c", seed=2), request("d"))
                summary = await run(client, source, out)
                assert (summary.answered_before, summary.answered) == (2, 2)
        assert count(out) == 6

    async def test_are_not_mixed_with_other_formats(self, out: Path) -> None:
        async with scripted_site(respond) as site, site.openai_client(MODEL) as client:
            await run_batch(client, ["one"], out)
            with pytest.raises(OutputError, match="line 1 is not in OpenAI's format"):
                await run(client, [request()], out)
            other = out.with_suffix(".other")
            await run(client, [request()], other)
            with pytest.raises(OutputError, match="line 1 is in OpenAI's format"):
                await run_batch(client, ["one"], other)

    def test_of_several_files_name_their_file(self) -> None:
        line = json.dumps(request()).encode()
        made = record_of_line(line, format="openai", site="s", index=3, number=4, file="in.jsonl")
        written = json.loads(line_of_error(made, OSError("no")))
        assert (written["file"], written["index"]) == ("in.jsonl", 3)
