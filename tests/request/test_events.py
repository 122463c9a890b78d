"""The log events of requests: kinds, fields, and the absence of content."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
from support.http_libraries import httpx
from support.log_events import BROKEN, LOGGER, OK, fan_out_of_one, fields, names, told
from support.loops import virtual
from support.scripted import reply

from gprochat_anyio import Client, GPROChatError, Retry, Usage, gather, race
from gprochat_anyio._request.observers import Observers
from gprochat_anyio._request.request_events import Observed
from gprochat_anyio.site import Finish
from gprochat_anyio.testing import (
    Drop,
    Hang,
    Pause,
    Raw,
    Refuse,
    Reply,
    Say,
    live_site,
    scripted_site,
)

URL = "http://site.test"
WHOLE = ["request.started", "connection.made", "reply.started", "request.done"]


@virtual
async def test_a_reply(heard: pytest.LogCaptureFixture) -> None:
    script = [Say(""), Pause(2), Say("Hel"), Pause(3), Say("lo")]
    async with scripted_site(script, url=URL, connect_after=0.5) as site:
        async with site.client() as client:
            await client.ask("Hi")
            await client.ask("Hi")
    first, again = told(heard)[:4], told(heard)[4:]
    assert [event.pop("event") for event in first] == WHOLE
    assert [event["event"] for event in again] == [
        *("request.started", "connection.reused", "reply.started", "request.done")
    ]
    number = first[0]["request"]
    assert {event.pop("request") for event in first} == {number}
    assert {event["request"] for event in again} == {number + 1}
    assert {event.pop("site") for event in first} == {"site.test:80"}
    assert first == [
        {},
        {"seconds": pytest.approx(0.5)},
        {"seconds": pytest.approx(2.5), "attempts": 1},
        {"seconds": pytest.approx(5.5), "attempts": 1, "chunks": 2, "characters": 5},
    ]
    line = heard.records[2].getMessage()
    assert line == f"reply.started request={number} site=site.test:80 seconds=2.500 attempts=1"
    assert {record.levelno for record in heard.records} == {logging.DEBUG}


@virtual
async def test_a_model_that_counts_tokens(heard: Any) -> None:
    async def model(_: object) -> AsyncIterator[str]:
        yield "Hello"
        yield Finish("length", Usage(3, 2))

    async with Client.of(model, name="mine") as client:
        await client.ask("Hi")
    assert names(heard) == ["request.started", "reply.started", "request.done"]
    end = told(heard)[-1]
    assert (end["site"], end["finish_reason"]) == ("model:mine", "length")
    assert (end["input_tokens"], end["output_tokens"]) == (3, 2)


@virtual
async def test_a_reply_in_one_read(heard: Any) -> None:
    async with scripted_site(Raw(reply("one", "two"))) as site:
        async with site.client() as client:
            async with client.stream("Hi") as chunks:
                await chunks.read()
    assert names(heard) == WHOLE
    assert (told(heard)[-1]["chunks"], told(heard)[-1]["characters"]) == (1, 6)


@virtual
@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
async def test_retries(caplog: Any, level: int) -> None:
    caplog.set_level(level, LOGGER)
    limited = Refuse(429, "slow", retry_after=2)
    async with scripted_site(limited, [Say(""), Drop()], "ok") as site:
        async with site.client(retry=Retry(backoff=0)) as client:
            await client.ask("Hi")
    retries = [record for record in caplog.records if record.levelno == logging.INFO]
    shown = [fields(record) for record in retries]
    assert [{**event, "request": 0, "site": ""} for event in shown] == [
        {
            "event": "request.retry",
            "request": 0,
            "site": "",
            "error": "RateLimitError",
            "status": 429,
            "attempt": 1,
            "pause": 2.0,
        },
        {
            "event": "request.retry",
            "request": 0,
            "site": "",
            "error": "ReplyInterruptedError",
            "attempt": 2,
            "pause": 0.0,
        },
    ]
    if level == logging.INFO:
        assert len(caplog.records) == 2
    else:
        assert told(caplog)[-1]["attempts"] == 3


@virtual
async def test_a_rate_limit_in_a_fan_out(caplog: Any) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    refused = [Refuse(429, "slow", retry_after=7)] * 5
    async with scripted_site(*refused, "ok", url=URL) as site:
        async with site.client(retry=Retry(backoff=0)) as client:
            await gather(client, ["Hi"] * 5, adaptive=True, max_at_once=5)
    pause, *retries = told(caplog)
    assert pause == {
        "event": "rate_limit.pause", "site": "site.test:80", "pause": 7.0, "at_once": 4
    }  # fmt: skip
    assert [retry["event"] for retry in retries] == ["request.retry"] * 5
    assert {retry["pause"] for retry in retries} == {7.0}


async def test_the_losers_of_a_race(heard: pytest.LogCaptureFixture) -> None:
    async with scripted_site([Say("fast")]) as one, scripted_site([Hang()]) as other:
        async with Client(other.url) as slow, Client(one.url) as fast:
            async with race([slow, fast], "Hi") as chunks:
                await chunks.read()
    ends = sorted(name for name in names(heard) if name in {"request.done", "request.cancelled"})
    assert ends == ["request.cancelled", "request.done"]


async def test_another_transport_reports_its_connection(heard: Any) -> None:
    async with live_site(OK) as site:
        async with site.client(transport=httpx.AsyncHTTPTransport()) as client:
            await client.ask("Hi")
            await client.ask("Hi")
    assert names(heard) == [
        *WHOLE,
        *("request.started", "connection.reused", "reply.started", "request.done"),
    ]


async def test_no_listener(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, LOGGER)
    assert Observers(Observed("site.test", 80)).watch() is None
    Observers(Observed("site.test", 80)).paused(1.0, 1)
    assert not caplog.records


async def test_an_ipv6_site(heard: pytest.LogCaptureFixture) -> None:
    assert Observers(Observed("::1", 8000)).watch() is not None
    assert told(heard)[0]["site"] == "[::1]:8000"


async def calls_of_the_log(monkeypatch: Any, level: int, chunks: int) -> int:
    logger, calls = logging.getLogger(LOGGER), 0
    script = [Say("some")] * chunks

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            return function(*args, **kwargs)

        return counted

    with monkeypatch.context() as patch:
        patch.setattr(logger, "level", level)
        logger.manager._clear_cache()  # type: ignore[attr-defined]
        patch.setattr(logger, "isEnabledFor", counting(logger.isEnabledFor))
        patch.setattr(logger, "log", counting(logger.log))
        async with scripted_site(script) as site, site.client() as client:
            async with client.stream("Hi") as stream:
                assert len(await stream.read()) == 4 * chunks
            await fan_out_of_one(client)
    logger.manager._clear_cache()  # type: ignore[attr-defined]
    return calls


async def test_one_level_check_for_a_request_and_none_for_text(monkeypatch: Any) -> None:
    for chunks in (1, 100):
        assert await calls_of_the_log(monkeypatch, logging.WARNING, chunks) == 2
    few = await calls_of_the_log(monkeypatch, logging.DEBUG, 2)
    assert await calls_of_the_log(monkeypatch, logging.DEBUG, 200) == few


async def test_no_content_in_any_field(heard: pytest.LogCaptureFixture) -> None:
    secrets: dict[str, Any] = {"secret_key": "canary-key", "password": "canary-password"}
    replies: list[Reply] = [Refuse(429, "canary-site"), "canary-text", BROKEN]
    async with live_site(*replies, Refuse(400, "canary-site"), **secrets) as site:
        proxy = site.url.replace("://", "://user:canary-proxy@")
        async with Client(
            "http://site.test/canary-path",
            **secrets,
            proxy=proxy,
            headers={"X-Test": "canary-header"},
            retry=Retry(attempts=2, backoff=0),
        ) as client:
            for _ in range(3):
                with suppress(GPROChatError):
                    await client.ask("canary-prompt")
    assert len(told(heard)) > 8
    for record in heard.records:
        assert "canary" not in json.dumps(vars(record), default=repr)
