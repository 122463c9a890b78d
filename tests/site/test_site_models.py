"""Clients as the models of a site, against scripted servers of their APIs."""

from __future__ import annotations

import json
import logging
from typing import Any

import anyio
import pytest
from support import servers
from support.blocked import all_tasks_blocked
from support.model_servers import (
    END,
    HEAD,
    QUESTION,
    answer,
    chunk,
    event,
    gemini,
    openai,
    stream,
    told,
)
from support.prompted import closed, pool_of
from support.retries import ONCE
from support.site_wire import connected, serving, signed

from gprochat_anyio import Client, Fleet, Timeouts, Usage
from gprochat_anyio.site import ModelError, Turn
from gprochat_anyio.site._client_model import ClientModel
from gprochat_anyio.testing import (
    Drop,
    Hang,
    Hold,
    Raw,
    Script,
    Step,
    at_every_checkpoint,
    live_site,
    scripted_site,
)

KEY = "sk-a-made-up-key"
BOTH = pytest.mark.parametrize("kind", ["gemini", "openai"])
HELLO = stream(gemini("Hi", "STOP") | openai("Hi", "stop"))


def client_of(kind: str, url: str) -> Client:
    if kind == "gemini":
        return Client.gemini(api_key=KEY, base_url=url, retry=ONCE)
    return Client.openai(url, model="llama3.2", api_key=KEY, retry=ONCE)


def played(*script: bytes | Step | Hold) -> Script:
    return [Raw(step) if isinstance(step, bytes) else step for step in script]


async def asked(kind: str, *script: bytes | Step) -> Any:
    """Return the result of a client as a model, with a scripted server."""
    async with (
        live_site(played(*script), strict=False) as site,
        client_of(kind, site.url) as client,
    ):
        return await told(ClientModel(client)(QUESTION))


@BOTH
async def test_turns_are_converted_for_models(kind: str) -> None:
    turns = (
        Turn("system", "Be brief"),
        Turn("user", "One"),
        Turn("user", "two"),
        Turn("model", " "),
        Turn("model", "Ünï"),
        Turn("user", "three"),
    )
    requests: list[servers.Request] = []
    async with (
        servers.serving(servers.repeating(HELLO, seen=requests)) as site,
        client_of(kind, site.url) as client,
    ):
        assert (await told(ClientModel(client)(turns)))[0] == ["Hi"]
    body = json.loads(requests[0].body)
    if kind == "gemini":
        assert body["systemInstruction"] == {"parts": [{"text": "Be brief"}]}
        said = [(turn["role"], turn["parts"][0]["text"]) for turn in body["contents"]]
        assert said == [("user", "One\n\ntwo"), ("model", "Ünï"), ("user", "three")]
    else:
        assert [(turn["role"], turn["content"]) for turn in body["messages"]] == [
            ("system", "Be brief"),
            ("user", "One\n\ntwo"),
            ("assistant", "Ünï"),
            ("user", "three"),
        ]


async def test_a_blank_question_is_not_asked() -> None:
    async with live_site() as site, client_of("openai", site.url) as client:
        with pytest.raises(ModelError, match="blank") as raised:
            await anext(aiter(ClientModel(client)((Turn("user", " \n"),))))
        assert raised.value.status == 400
        with pytest.raises(ModelError, match="last") as raised:
            await anext(aiter(ClientModel(client)((Turn("model", "a"),))))
        assert raised.value.status == 400
        assert site.connections == 0


@BOTH
async def test_the_reason_and_the_usage_are_passed_on(kind: str) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    counted = {"promptTokenCount": 9, "candidatesTokenCount": 4, "totalTokenCount": 13}
    whole = stream(
        gemini("So", "MAX_TOKENS") | openai("So", "length") | {"usageMetadata": counted},
        {"choices": [], "usage": usage},
    )
    async with servers.serving(servers.repeating(whole)) as site:
        async with client_of(kind, site.url) as client, serving(client) as port:
            assert ClientModel(client).name in ("gemini-flash-latest", "llama3.2")
            async with Client.openai(f"http://127.0.0.1:{port}/v1", model="any") as gateway:
                reply = await gateway.ask("Hello")
    assert (reply.text, reply.finish_reason, reply.usage) == ("So", "length", Usage(9, 4))


async def test_a_fleet_has_no_model_name() -> None:
    async with client_of("openai", "http://127.0.0.1:9") as client, Fleet([client]) as fleet:
        model = ClientModel(fleet)
        assert model.name == "gprochat"
        assert repr(model) == f"<ClientModel by {fleet!r}>"


@pytest.mark.parametrize(
    ("script", "status", "code", "retry_after"),
    [
        ([answer(401, {"error": {"message": f"no such key {KEY}"}})], 500, None, None),
        ([answer(429, {"error": {"message": "slow"}}, "Retry-After: 7")], 429, None, 7),
        ([answer(400, {"error": {"message": "too long"}})], 400, None, None),
        ([answer(404, {"error": {"message": "no such model"}})], 500, None, None),
        ([stream(openai("Hi"), openai(None, "content_filter"))], 400, "content_filter", None),
        ([HEAD + chunk(event(openai("Hi"))), Drop()], 500, None, None),
        ([Drop()], 503, None, None),
    ],
)
async def test_failures(
    script: list[Any], status: int, code: str | None, retry_after: float | None
) -> None:
    _, _, error = await asked("openai", *script)
    assert isinstance(error, ModelError)
    assert (error.status, error.code, error.retry_after) == (status, code, retry_after)
    assert "the model behind this site: " in str(error)
    assert KEY not in str(error)


async def test_a_timeout() -> None:
    async with live_site(played(Hang()), strict=False) as site:
        limits = Timeouts(first_chunk=0.01)
        async with Client.openai(site.url, model="m", timeouts=limits) as client:
            _, _, error = await told(ClientModel(client)(QUESTION))
    assert error is not None
    assert error.status == 504


@BOTH
@pytest.mark.parametrize("when", ["before the head", "before the text", "after it"])
async def test_a_client_that_disconnects_cancels_the_request(
    kind: str, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    text = event(gemini("Hi") | {"choices": openai("Hi")["choices"]})
    sent = {"before the head": b"", "before the text": HEAD, "after it": HEAD + chunk(text)}
    asked_for = anyio.Event()

    async def note() -> None:
        asked_for.set()

    script = played(sent[when], note, Hang())
    async with live_site(script, strict=False) as upstream:
        async with client_of(kind, upstream.url) as client, serving(client) as port:
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
async def test_a_cancellation_at_any_point_closes_the_connection(kind: str) -> None:
    both = gemini("Hi", "STOP") | {"choices": openai("Hi", "stop")["choices"]}
    script = played(HEAD, chunk(event(both)), END)
    async with scripted_site(script, strict=False) as upstream:
        async with client_of(kind, upstream.url) as client:
            model = ClientModel(client)
            for cancel in at_every_checkpoint(twice=True):
                await cancel(lambda: told(model(QUESTION)))
                await all_tasks_blocked()
                assert pool_of(client).statistics().available == 1000, cancel
            assert upstream.connections > 5
