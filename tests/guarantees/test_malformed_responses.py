"""Responses that are not HTTP/1.1: each raises one typed error, and affects only its own
request."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from support.http_libraries import httpx
from support.response_bytes import REPLY_HEAD
from support.scripted import reply
from support.servers import authority, closing, repeating, serving

from gprochat_anyio import (
    Client,
    ReplyInterruptedError,
    Retry,
    SiteConnectionError,
    UnexpectedResponseError,
    gather,
)
from gprochat_anyio.batch import run_batch
from gprochat_anyio.testing import Drop, Raw, Request, Script, scripted_site
from gprochat_anyio.transport import AnyIOTransport

BADLY_ENDED = pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"1\r\nII\r\n", id="longer than its size"),
        pytest.param(b"2\r\nInIX", id="no line break behind it"),
        pytest.param(b"1\r\nI\r\nI\r\nn", id="the next size is not a number"),
    ],
)
"""Bodies that begin like the failure marker, which the decoder inspects completely."""

NOT_HTTP = pytest.mark.parametrize(
    "status_line",
    [
        pytest.param(b"RTSP/1.0 200 OK", id="RTSP"),
        pytest.param(b"ICE/1.0 200 OK", id="ICE"),
        pytest.param(b"HTTP/1.1 200 O\0K", id="NUL in the reason phrase"),
        pytest.param(b"HTTP/1.1 099 OK", id="status 099"),
    ],
)


def spoilt_by(body: bytes) -> Script:
    """Return a reply with this body, in a single read."""
    return [Raw(REPLY_HEAD + body), Drop()]


def spoiling_one(body: bytes) -> Callable[[Request], Script]:
    """Return the replies of a site that sends this body for one prompt only."""

    def reply_to(request: Request) -> Script:
        return spoilt_by(body) if request.prompt == "40" else request.prompt

    return reply_to


@BADLY_ENDED
async def test_a_badly_ended_chunk_is_one_typed_error(body: bytes) -> None:
    async with scripted_site(spoilt_by(body)) as site, site.client() as client:
        with pytest.raises(ReplyInterruptedError) as asked:
            await client.ask("hi")
        with pytest.raises(ReplyInterruptedError) as streamed:
            async with client.stream("hi") as chunks:
                await chunks.read()
        assert {asked.value.partial_text, streamed.value.partial_text} <= {"I", "In"}
        assert asked.value.partial_text == streamed.value.partial_text


@BADLY_ENDED
async def test_a_badly_ended_chunk_fails_one_prompt_of_many(body: bytes) -> None:
    async with scripted_site(spoiling_one(body)) as site, site.client() as client:
        outcomes = await gather(client, map(str, range(81)), max_at_once=20)
    assert [outcome.index for outcome in outcomes if outcome.reply is None] == [40]
    assert isinstance(outcomes[40].error, ReplyInterruptedError)
    texts = [outcome.unwrap().text for outcome in outcomes if outcome.index != 40]
    assert texts == [str(n) for n in range(81) if n != 40]


async def test_a_badly_ended_chunk_fails_one_line_of_a_batch(tmp_path: Path) -> None:
    sink = tmp_path / "out.jsonl"
    async with scripted_site(spoiling_one(b"1\r\nII\r\n")) as site, site.client() as client:
        summary = await run_batch(client, map(str, range(81)), sink)
    assert (summary.answered, summary.failures) == (80, {"ReplyInterruptedError": 1})
    lines = [json.loads(line) for line in sink.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 81
    assert [line["index"] for line in lines if "error" in line] == [40]


@NOT_HTTP
@pytest.mark.parametrize("size", [1, 10_000], ids=["bytewise", "whole"])
async def test_other_protocols_are_not_a_reply(status_line: bytes, size: int) -> None:
    whole = reply("text").replace(b"HTTP/1.1 200 OK", status_line)
    script = [Raw(whole[start : start + size]) for start in range(0, len(whole), size)]
    async with scripted_site(script) as site, site.client(retry=Retry(attempts=3)) as client:
        with pytest.raises(UnexpectedResponseError, match=r"^the response"):
            await client.ask("hi")
        assert len(site.requests) == 1


@NOT_HTTP
async def test_other_protocols_are_not_a_response_to_httpx(status_line: bytes) -> None:
    whole = status_line + b"\r\nContent-Length: 2\r\n\r\nok"
    with anyio.fail_after(10):
        async with serving(closing(whole)) as server:
            async with httpx.AsyncClient(transport=AnyIOTransport()) as client:
                with pytest.raises(httpx.RemoteProtocolError):
                    await client.get(server.url)


async def test_a_context_that_negotiates_http_2() -> None:
    """The error names the mistake and its remedy. There is no retry."""
    servers = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("127.0.0.1").configure_cert(servers)
    servers.set_alpn_protocols(["h2", "http/1.1"])
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(own)
    own.set_alpn_protocols(["h2", "http/1.1"])
    retry = Retry(attempts=3, backoff=0)
    with anyio.fail_after(10):
        async with serving(repeating(), tls=servers) as server:
            async with Client(server.url, ssl_context=own, retry=retry) as client:
                with pytest.raises(SiteConnectionError, match=r"HTTP/2.*set_alpn_protocols"):
                    await client.ask("hi")
                assert server.accepted == 1
