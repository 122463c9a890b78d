"""What is tried again, after how long, and what never is."""

from __future__ import annotations

from itertools import pairwise

import anyio
import pytest
from loops import VIRTUAL_LOOPS
from scripted import HEAD, End, Script, answer, chunk, error, memory_site, reply

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

virtual = pytest.mark.parametrize("anyio_backend", VIRTUAL_LOOPS, indirect=True)

HIDDEN_LIMIT = error(500, "[429 Too Many Requests] slow down")


@virtual
@pytest.mark.parametrize(
    ("failing", "kind", "sent"),
    [
        ((error(429, "slow down"),), RateLimitError, 3),
        ((HIDDEN_LIMIT,), RateLimitError, 3),
        ((answer(502, b"<html>", content_type="text/html"),), UnexpectedResponseError, 3),
        ((error(503, "busy"),), SiteError, 3),
        ((answer(504),), UnexpectedResponseError, 3),
        ((End.FIN,), SiteConnectionError, 3),
        ((HEAD, End.FIN), ReplyInterruptedError, 3),
        ((HEAD[:20], End.FIN), ReplyInterruptedError, 3),
        ((reply("Internal server error"),), ReplyInterruptedError, 3),
        ((reply(b"\xff"),), ReplyInterruptedError, 3),
        ((error(500, "no"),), SiteError, 1),
        ((error(400, "no"),), SiteError, 1),
        ((error(401, "Invalid password."),), AuthenticationError, 1),
        ((reply(),), EmptyReplyError, 1),
        ((answer(200, b"<html>", content_type="text/html"),), UnexpectedResponseError, 1),
        ((HEAD + chunk("text"), End.FIN), ReplyInterruptedError, 1),
        ((b"SSH-2.0-OpenSSH\r\n",), UnexpectedResponseError, 1),
    ],
)
async def test_what_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, failing: Script, kind: type[GPROChatError], sent: int
) -> None:
    async with memory_site(monkeypatch, failing) as site, Client(site.url) as client:
        with pytest.raises(kind) as caught:
            await client.ask("hello")
        assert type(caught.value) is kind
        assert len(site.requests) == sent
        assert site.connections == sent  # no second try on a connection of the first
    if sent > 1:
        async with memory_site(monkeypatch, failing, failing, (reply("at last"),)) as site:
            async with Client(site.url) as client:
                answer_ = await client.ask("hello")
        assert (answer_.text, answer_.timing.attempts) == ("at last", 3)


@virtual
async def test_each_attempt_is_signed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1_700_000_000_000, 1_700_000_000_500])
    monkeypatch.setattr("time.time_ns", lambda: next(times) * 1_000_000)
    async with memory_site(monkeypatch, (error(503, ""),), (reply("ok"),)) as site:
        async with Client(site.url, secret_key="k") as client:
            await client.ask("hello")
    first, second = (request.body for request in site.requests)
    assert first["time"] == 1_700_000_000_000
    assert second["time"] == 1_700_000_000_500
    assert first["sign"] != second["sign"]


@virtual
async def test_failure_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    async def refuse(host: str, port: int) -> None:
        tried.append((host, port))
        raise OSError("All connection attempts failed") from ConnectionRefusedError(
            111, "Connection refused"
        )

    monkeypatch.setattr(anyio, "connect_tcp", refuse)
    async with Client("http://site.test:81") as client:
        with pytest.raises(
            SiteConnectionError, match=r"site\.test:81: Connection refused"
        ) as caught:
            await client.ask("hello")
    assert tried == [("site.test", 81)] * 3
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@virtual
async def test_timeouts_are_tried_again_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with memory_site(monkeypatch, (100.0,), (reply("ok"),)) as site:
        retry = Retry(timeouts=True)
        async with Client(site.url, retry=retry, timeouts=Timeouts(first_chunk=3)) as client:
            assert (await client.ask("hello")).timing.attempts == 2
    async with memory_site(monkeypatch, (100.0,)) as site:
        async with Client(site.url, retry=retry, timeouts=Timeouts(total=3)) as client:
            with pytest.raises(RequestTimeoutError):
                await client.ask("hello")
        assert len(site.requests) == 1


@virtual
async def test_backoff_doubles_with_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    when: list[float] = []

    async def note() -> None:
        when.append(anyio.current_time())

    async with memory_site(monkeypatch, (note, error(503, ""))) as site:
        retry = Retry(attempts=5, backoff=1, backoff_max=4)
        async with Client(site.url, retry=retry) as client:
            with pytest.raises(SiteError):
                await client.ask("hello")
    waits = [after - before for before, after in pairwise(when)]
    for wait, longest in zip(waits, (1, 2, 4, 4), strict=True):
        assert longest / 2 <= wait <= longest


@virtual
@pytest.mark.parametrize(
    "asked",
    ["7", "Sun, 06 Nov 2044 08:49:44 GMT"],
)
async def test_retry_after(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    limited = error(429, "", Retry_After=asked, Date="Sun, 06 Nov 2044 08:49:37 GMT")
    async with memory_site(monkeypatch, (limited,), (reply("ok"),)) as site:
        async with Client(site.url) as client:
            assert 7 <= (await client.ask("hello")).timing.total <= 7.5


@virtual
async def test_a_wait_beyond_total_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    async with memory_site(monkeypatch, (error(429, "", Retry_After="3600"),)) as site:
        async with Client(site.url) as client:
            with pytest.raises(RateLimitError, match="wait 3600 s") as caught:
                await client.ask("hello")
        assert caught.value.retry_after == 3600
        assert anyio.current_time() < 1
        assert len(site.requests) == 1


@virtual
async def test_a_kept_connection_found_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        memory_site(monkeypatch, (reply("one"),), (End.FIN,), (reply("two"),)) as site,
        Client(site.url) as client,
    ):
        await client.ask("hello")
        second = await client.ask("hello")
        assert (second.text, second.timing.attempts) == ("two", 2)
        assert second.timing.total == 0  # at once
    async with memory_site(monkeypatch, (reply("one"),), (End.FIN,)) as site:
        async with Client(site.url, retry=Retry(attempts=1)) as client:
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
    ],
)
def test_bad_settings(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Retry(**settings)  # type: ignore[arg-type]
