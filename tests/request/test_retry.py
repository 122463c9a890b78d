"""Retries: the failures that they cover, delays, and `Retry-After`."""

from __future__ import annotations

import socket
from itertools import pairwise

import anyio
import pytest
from support.faults import WAYS, receive_by
from support.loops import virtual
from support.response_bytes import REPLY_HEAD, answer
from support.servers import closed_port

from gprochat_anyio import (
    AuthenticationError,
    Client,
    EmptyReplyError,
    GPROChatError,
    RateLimitError,
    ReplyInterruptedError,
    RequestTimeoutError,
    Retry,
    SiteConnectionError,
    SiteError,
    Timeouts,
    UnexpectedResponseError,
)
from gprochat_anyio.testing import Drop, Fail, Pause, Raw, Refuse, Reply, Say, scripted_site
from gprochat_anyio.transport import _connecting
from gprochat_anyio.transport._names import Address

HIDDEN_LIMIT = Refuse(500, "[429 Too Many Requests] slow down")
HTML = {"Content-Type": "text/html"}


@virtual
@pytest.mark.parametrize(
    ("failing", "kind", "sent"),
    [
        (Refuse(429, "slow down"), RateLimitError, 3),
        (HIDDEN_LIMIT, RateLimitError, 3),
        (Raw(answer(502, b"<html>", HTML)), UnexpectedResponseError, 3),
        (Refuse(503, "busy"), SiteError, 3),
        (Refuse(504), UnexpectedResponseError, 3),
        (Drop(), SiteConnectionError, 3),
        ([Say(""), Drop()], ReplyInterruptedError, 3),
        ([Raw(REPLY_HEAD[:20]), Drop()], ReplyInterruptedError, 3),
        ([Say(""), Fail()], ReplyInterruptedError, 3),
        (Say(b"\xff"), ReplyInterruptedError, 3),
        (Refuse(500, "no"), SiteError, 1),
        (Refuse(400, "no"), SiteError, 1),
        (Refuse(401, "Invalid password."), AuthenticationError, 1),
        ("", EmptyReplyError, 1),
        (Raw(answer(200, b"<html>", HTML)), UnexpectedResponseError, 1),
        ([Say("text"), Drop()], ReplyInterruptedError, 1),
        (Raw(b"SSH-2.0-OpenSSH\r\n"), UnexpectedResponseError, 1),
    ],
)
@pytest.mark.parametrize("way", WAYS)
async def test_retried_failures(
    way: str, failing: Reply, kind: type[GPROChatError], sent: int
) -> None:
    async with scripted_site(failing) as site, site.client() as client:
        with pytest.raises(kind) as caught:
            await receive_by(way, client)
        assert type(caught.value) is kind
        assert len(site.requests) == sent
        assert site.connections == sent  # no second attempt on the first one's connection
    if sent > 1:
        async with scripted_site(failing, failing, "at last") as site, site.client() as client:
            pieces: list[str] = []
            assert await receive_by(way, client, into=pieces) == "at last"
            assert way == "ask" or pieces == ["at last"]
            assert len(site.requests) == 3


@virtual
async def test_attempts_are_counted() -> None:
    busy = Refuse(503, "busy")
    async with scripted_site(busy, Drop(), "ok", busy, "ok") as site, site.client() as client:
        assert (await client.ask("hello")).timing.attempts == 3
        async with client.stream("hello") as chunks:
            assert chunks.timing.attempts == 2


@virtual
async def test_each_attempt_has_its_own_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1_700_000_000_000, 1_700_000_000_500])
    monkeypatch.setattr("time.time_ns", lambda: next(times) * 1_000_000)
    async with scripted_site(Refuse(503, ""), "ok", secret_key="k") as site:
        async with site.client() as client:
            await client.ask("hello")
    first, second = (request.body for request in site.requests)
    assert first["time"] == 1_700_000_000_000
    assert second["time"] == 1_700_000_000_500
    assert first["sign"] != second["sign"]


@virtual
async def test_failure_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    async def resolve(host: str, port: int) -> list[Address]:
        tried.append((host, port))
        return [(socket.AF_INET, ("127.0.0.1", closed_port()))]

    monkeypatch.setattr(_connecting, "resolve", resolve)
    async with Client("http://site.test:81") as client:
        with pytest.raises(
            SiteConnectionError, match=r"site\.test:81: Connection refused"
        ) as caught:
            await client.ask("hello")
    assert tried == [("site.test", 81)] * 3
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@virtual
async def test_timeouts_are_retried_on_request() -> None:
    async with scripted_site(Pause(100), "ok") as site:
        retry = Retry(timeouts=True)
        async with site.client(retry=retry, timeouts=Timeouts(first_chunk=3)) as client:
            assert (await client.ask("hello")).timing.attempts == 2
    async with scripted_site(Pause(100)) as site:
        async with site.client(retry=retry, timeouts=Timeouts(total=3)) as client:
            with pytest.raises(RequestTimeoutError):
                await client.ask("hello")
        assert len(site.requests) == 1


@virtual
async def test_backoff_doubles_with_jitter() -> None:
    async with scripted_site(Refuse(503, "")) as site:
        retry = Retry(attempts=5, backoff=1, backoff_max=4)
        async with site.client(retry=retry) as client:
            with pytest.raises(SiteError):
                await client.ask("hello")
    waits = [after.time - before.time for before, after in pairwise(site.requests)]
    for wait, longest in zip(waits, (1, 2, 4, 4), strict=True):
        assert longest / 2 <= wait <= longest


@virtual
@pytest.mark.parametrize(
    "asked",
    ["7", "Sun, 06 Nov 2044 08:49:44 GMT"],
)
async def test_retry_after(asked: str) -> None:
    fields = {"Retry-After": asked, "Date": "Sun, 06 Nov 2044 08:49:37 GMT"}
    limited = Raw(answer(429, b'{"error": {"message": ""}}', fields))
    async with scripted_site(limited, "ok") as site, site.client() as client:
        assert 7 <= (await client.ask("hello")).timing.total <= 7.5


@virtual
async def test_no_wait_beyond_total() -> None:
    async with scripted_site(Refuse(429, "", retry_after=3600)) as site:
        async with site.client(timeouts=Timeouts(total=60)) as client:
            with pytest.raises(RateLimitError, match="wait 3600 s") as caught:
                await client.ask("hello")
        assert caught.value.retry_after == 3600
        assert anyio.current_time() < 1
        assert len(site.requests) == 1


@virtual
@pytest.mark.parametrize(
    ("settings", "wait"), [({}, 60), ({"max_wait": 9}, 9), ({"max_wait": 0}, 0)]
)
async def test_a_retry_after_up_to_max_wait(settings: dict[str, float], wait: float) -> None:
    async with scripted_site(Refuse(429, "", retry_after=99_999_999), "ok") as site:
        async with site.client(retry=Retry(backoff=0, **settings)) as client:  # type: ignore[arg-type]
            reply = await client.ask("hello")
    assert reply.timing.total == pytest.approx(wait)
    assert reply.timing.attempts == 2


@virtual
async def test_an_idle_connection_found_closed() -> None:
    async with scripted_site("one", Drop(), "two") as site, site.client() as client:
        await client.ask("hello")
        second = await client.ask("hello")
        assert (second.text, second.timing.attempts) == ("two", 2)
        assert second.timing.total == 0  # immediately
    async with scripted_site("one", Drop()) as site:
        async with site.client(retry=Retry(attempts=1)) as client:
            await client.ask("hello")
            with pytest.raises(SiteConnectionError) as caught:
                await client.ask("hello")
            assert caught.value.stale
        assert len(site.requests) == 2


def test_switches() -> None:
    never = Retry(connection_errors=False, interruptions=False, statuses=frozenset())
    for failure in (
        SiteConnectionError(""),
        ReplyInterruptedError(""),
        RateLimitError("", status=500),
        SiteError("", status=503),
        RequestTimeoutError("", phase="connect"),
    ):
        assert not never.covers(failure)
    assert Retry(statuses=frozenset({500})).covers(SiteError("", status=500))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"attempts": 0}, "attempts"),
        ({"attempts": 1.5}, "attempts"),
        ({"attempts": True}, "attempts"),
        ({"backoff": -1}, "backoff"),
        ({"backoff": float("nan")}, "backoff"),
        ({"backoff_max": "x"}, "backoff_max"),
        ({"max_wait": -1}, "max_wait"),
        ({"max_wait": float("nan")}, "max_wait"),
        ({"max_wait": None}, "max_wait"),
    ],
)
def test_bad_settings(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Retry(**settings)  # type: ignore[arg-type]


@virtual
@pytest.mark.parametrize("end", [Drop(), Drop(reset=True)], ids=["FIN", "RST"])
@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, RateLimitError), (503, UnexpectedResponseError)],
)
async def test_a_truncated_503_response_is_a_busy_site(
    status: int, kind: type[SiteError], end: Drop
) -> None:
    head = b"HTTP/1.1 %d E\r\nRetry-After: 7\r\nContent-Length: 99\r\n\r\n{" % status
    async with scripted_site([Raw(head), end]) as site:
        async with site.client(retry=Retry(attempts=1)) as client:
            with pytest.raises(kind) as caught:
                await client.ask("Hi")
    assert (caught.value.status, caught.value.retry_after) == (status, 7.0)
