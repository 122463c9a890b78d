"""Limiters, retries, proxies and size limits with clients of model APIs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from support.apis import GPROCHAT, OPENAI, Api, every_api, every_model_api
from support.faults import WAYS, assert_ours, receive_by
from support.http_libraries import EACH_LIBRARY
from support.loops import virtual
from support.prompted import AtOnce, echo
from support.proxies import proxying
from support.response_bytes import answer
from support.servers import client_context, repeating, server_context, serving

from gprochat_anyio import (
    Client,
    Limiter,
    RateLimitError,
    ReplyInterruptedError,
    Retry,
    SiteError,
    Timeouts,
    UnexpectedResponseError,
    fan_out,
    gather,
    race,
)
from gprochat_anyio.testing import Pause, Raw, Refuse, Request, Say, Script, scripted_site


def then_ok(*refusals: Script) -> Callable[[Request], Script]:
    """Return replies of a site that refuses the first requests."""
    return lambda request: refusals[request.number] if request.number < len(refusals) else "ok"


@virtual
@every_api
@pytest.mark.parametrize("way", WAYS[:3])
async def test_retry_after(api: Api, way: str) -> None:
    """Gemini may also send it in the error body."""
    async with scripted_site(then_ok(Refuse(429, "busy", 7), Refuse(503, "busy", 5))) as site:
        async with api.client(site.url, retry=Retry(attempts=3, backoff=0)) as client:
            assert await receive_by(way, client) == "ok"
        assert [request.time for request in site.requests] == pytest.approx([0, 7, 12])


@virtual
async def test_googles_retry_delay() -> None:
    detail = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "39.5s"}
    error = {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "quota", "details": [detail]}
    body = answer(
        429, json.dumps([{"error": error}]).encode(), {"Content-Type": "application/json"}
    )
    async with scripted_site(then_ok(Raw(body))) as site:
        client = Client.gemini(base_url=site.url, api_key="k", retry=Retry(attempts=2, backoff=0))
        async with client:
            assert (await client.ask("hi")).text == "ok"
        assert [request.time for request in site.requests] == pytest.approx([0, 39.5])
    async with scripted_site(Raw(body)) as site:
        client = Client.gemini(base_url=site.url, api_key="k", retry=Retry(attempts=1))
        async with client:
            with pytest.raises(RateLimitError) as caught:
                await client.ask("hi")
    assert caught.value.retry_after == 39.5


@virtual
@every_model_api
@pytest.mark.parametrize(
    ("status", "attempts"), [(400, 1), (401, 1), (404, 1), (429, 3), (500, 1), (502, 3), (503, 3)]
)
async def test_statuses_that_are_retried(api: Api, status: int, attempts: int) -> None:
    async with scripted_site(Refuse(status, "no")) as site:
        async with api.client(site.url) as client:
            with pytest.raises(SiteError) as caught:
                await client.ask("hi")
        assert caught.value.status == status
        assert len(site.requests) == attempts


@virtual
@every_api
async def test_a_shared_limiter(api: Api) -> None:
    site_of = AtOnce(lambda request: [Say(request.prompt), Pause(1)])
    limiter = Limiter(max_at_once=3)
    async with scripted_site(site_of) as site:
        async with (
            api.client(site.url, limiter=limiter) as one,
            api.client(site.url, limiter=limiter) as other,
        ):
            texts: list[str] = []

            async def ask(client: Client, prompt: str) -> None:
                texts.append((await client.ask(prompt)).text)

            async with anyio.create_task_group() as tasks:
                for number in range(6):
                    tasks.start_soon(ask, one, f"a{number}")
                    tasks.start_soon(ask, other, f"b{number}")
            assert len({*texts}) == 12
            assert site_of.most == 3
            assert anyio.current_time() == pytest.approx(4)


@pytest.mark.slow
@virtual
@every_model_api
async def test_a_limiter_adapts_to_refusals(api: Api) -> None:
    """The server accepts four concurrent requests."""
    running: list[Request] = []

    def reply(request: Request) -> Script:
        running[:] = [r for r in running if r.outcome == "running"]
        if len(running) >= 4:
            return Refuse(429, "busy")
        running.append(request)
        return [Say("ok"), Pause(0.1)]

    async with scripted_site(reply) as site:
        async with api.client(site.url, limiter=Limiter(max_at_once=64)) as client:
            outcomes = await gather(client, ["hi"] * 200, max_at_once=64)
        assert [outcome.unwrap().text for outcome in outcomes] == ["ok"] * 200
        assert len(site.requests) <= 200 * 1.6  # few refusals once the limit is found


@every_api
async def test_many_prompts_over_an_api(api: Api) -> None:
    async with scripted_site(echo) as site, api.client(site.url, max_connections=4) as client:
        prompts = [f"prompt {number}" for number in range(50)]
        outcomes = await gather(client, prompts, max_at_once=3)
        assert [outcome.unwrap().text for outcome in outcomes] == prompts
        async with fan_out(client, prompts[:3], max_at_once=2) as events:
            async for _ in events:
                assert (await client.ask("beside")).text == "beside"
        async with race([client, client], "hi") as chunks:
            assert await chunks.read() == "hi"
        assert site.connections <= 4


@virtual
@every_model_api
@pytest.mark.parametrize("way", WAYS[:3])
async def test_max_reply_size_limits_the_text(api: Api, way: str) -> None:
    """The limit applies to the text, not to the events around it. The text is cut within an
    event."""
    texts = [Say("é😀" * 100)] * 9  # 600 bytes each
    async with scripted_site(texts) as site:
        async with api.client(site.url, max_reply_size=5400) as client:
            assert await receive_by(way, client) == "é😀" * 900
        async with api.client(site.url, max_reply_size=None) as client:
            assert await receive_by(way, client) == "é😀" * 900
        async with api.client(site.url, max_reply_size=5399) as client:
            pieces: list[str] = []
            with pytest.raises(ReplyInterruptedError, match="max_reply_size, 5399 bytes") as caught:
                await receive_by(way, client, into=pieces)
            assert_ours(caught.value, ReplyInterruptedError, ("é😀" * 900)[:-1])
            assert way == "ask" or "".join(pieces) == caught.value.partial_text


@every_api
@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_over_proxies(api: Api, kind: str) -> None:
    with anyio.fail_after(20):
        async with proxying(kind, credentials=("me", "secret")) as proxy:
            by = f"{kind}://me:secret@127.0.0.1:{proxy.port}"
            for tls in (None, server_context()):
                async with serving(repeating(api.reply("one", "two")), tls=tls) as server:
                    url = f"http{'s' if tls else ''}://site.test:{server.port}/v1"
                    settings: dict[str, Any] = {"ssl_context": client_context()} if tls else {}
                    async with api.client(url, proxy=by, **settings) as client:
                        for _ in range(2):
                            assert (await client.ask("hi")).text == "onetwo"
        assert len(proxy.asked) == (3 if kind == "http" else 2)


@EACH_LIBRARY
@every_model_api
async def test_over_another_transport(api: Api, library: Any) -> None:
    """Such as a mock, which has no socket."""

    def reply(request: Any) -> Any:
        body = api.piece("one") + api.piece("two") + api.ending
        return library.Response(200, headers={"content-type": "text/event-stream"}, content=body)

    transport = library.MockTransport(reply)
    async with api.client("http://site.test", transport=transport) as client:
        answered = await client.ask("hi")
        assert (answered.text, answered.finish_reason) == ("onetwo", "stop")


@virtual
@every_api
async def test_a_response_head_is_checked_for_the_api_of_its_request(api: Api) -> None:
    """The client does not reuse the result of an earlier check, or of another API's."""
    replies = [
        Raw(api.reply("ok").replace(b"\r\n", b"\r\nX-Number: %d\r\n" % n, 1)) for n in range(99)
    ]
    async with scripted_site(*replies) as site, api.client(site.url) as client:
        for _ in replies:
            assert (await client.ask("hi")).text == "ok"
    other = OPENAI if api is GPROCHAT else GPROCHAT
    async with scripted_site(replies[-1]) as site, other.client(site.url) as client:
        with pytest.raises(UnexpectedResponseError):
            await client.ask("hi")


@virtual
async def test_a_call_overrides_the_limits() -> None:
    async with scripted_site([Pause(50), Say("late")]) as site:
        async with OPENAI.client(site.url, timeouts=Timeouts(first_chunk=10)) as client:
            with pytest.raises(TimeoutError):
                await client.ask("hi")
            reply = await client.ask("hi", timeouts=Timeouts(first_chunk=60))
            assert reply.text == "late"
