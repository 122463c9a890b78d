"""Every fault in every phase is one error of the library, and no request is sent more often than
`Retry` allows.

In virtual time for every way to receive, and over sockets on every event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest
from support.api_faults import API_FAULTS
from support.apis import MODEL_APIS
from support.deaf_site import deaf_site, deaf_site_in_memory
from support.faults import FAULTS, WAYS, Fault, assert_ours, receive_by
from support.loops import virtual
from support.servers import client_context, closed_port

from gprochat_anyio import (
    Client,
    GPROChatError,
    RequestTimeoutError,
    Retry,
    SiteConnectionError,
    Timeouts,
)
from gprochat_anyio._errors import Phase
from gprochat_anyio.testing import Pause, Reply, ScriptedSite, live_site, scripted_site
from gprochat_anyio.transport import _connecting

every_fault = pytest.mark.parametrize("fault", FAULTS + API_FAULTS, ids=str)

LIMITS = Timeouts(connect=10, first_chunk=60, idle=30, total=600)


def prompt_of(fault: Fault) -> str:
    """Return a unique prompt. In the phase "send", it exceeds the connection's buffers."""
    return f"nonce of {fault}" + ("x" * 300_000 if fault.phase == "send" else "")


def settings_of(fault: Fault, url: str) -> dict[str, Any]:
    """Return the settings of a client that meets the fault, with TLS or a proxy if needed."""
    plain = url.removeprefix("http")
    ways: dict[str, dict[str, Any]] = {
        "tls": {"url": f"https{plain}", "ssl_context": client_context()},
        "proxy": {"url": "https://site.test", "proxy": url},
        "socks": {"url": "http://site.test", "proxy": f"socks5{plain}"},
    }
    return {"max_reply_size": 10_000, **ways.get(fault.phase, {"url": url})}


def client_of(fault: Fault, url: str, **settings: Any) -> Client:
    return fault.api.client(**settings_of(fault, url), **settings)


async def fail(
    fault: Fault, way: str, site: ScriptedSite, **settings: Any
) -> tuple[GPROChatError, str]:
    """Let a client meet the fault. Return its error, and the text received before."""
    async with client_of(fault, site.url, **settings) as client:
        if fault.phase == "kept connection":
            assert (await client.ask("an earlier prompt")).text == "zero"
        pieces: list[str] = []
        with pytest.raises(GPROChatError) as caught:
            await receive_by(way, client, prompt_of(fault), into=pieces)
        return caught.value, "".join(pieces)


def replies(fault: Fault, script: Reply) -> list[Reply]:
    return ["zero", script] if fault.phase == "kept connection" else [script]


@asynccontextmanager
async def in_memory(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ScriptedSite]:
    with anyio.fail_after(10_000):
        if fault.greets:
            async with deaf_site_in_memory(monkeypatch, fault.script) as deaf:
                yield deaf
        else:
            async with scripted_site(*replies(fault, fault.script)) as site:
                yield site


def sent(fault: Fault, site: ScriptedSite) -> int:
    """Return the number of times that the request was sent, as seen by the site."""
    if fault.greets:
        return site.connections
    return [request.prompt for request in site.requests].count(prompt_of(fault))


@virtual
@every_fault
@pytest.mark.parametrize("way", WAYS[:3])
async def test_is_one_library_error(
    monkeypatch: pytest.MonkeyPatch, fault: Fault, way: str
) -> None:
    async with in_memory(fault, monkeypatch) as site:
        began = anyio.current_time()
        failure, text = await fail(fault, way, site, timeouts=LIMITS, retry=Retry(attempts=1))
        assert_ours(failure, fault.error, fault.text)
        if way != "ask":
            assert text == fault.text
        if fault.clock is not None:
            assert isinstance(failure, RequestTimeoutError)
            assert failure.phase == fault.clock
            assert failure.elapsed == pytest.approx(getattr(LIMITS, fault.clock))
        assert anyio.current_time() - began == pytest.approx(
            getattr(LIMITS, fault.clock) if fault.clock else 0
        )
        assert sent(fault, site) == 1
        assert site.connections == 1


@virtual
@pytest.mark.parametrize(
    ("fault", "way"),
    [
        # The ways to receive alternate: retries are decided below them.
        pytest.param(
            fault,
            way,
            marks=[] if number % 3 == turn else pytest.mark.full,
            id=f"{fault}-{way}",
        )
        for number, fault in enumerate(FAULTS + API_FAULTS)
        for turn, way in enumerate(WAYS[:3])
    ],
)
async def test_is_sent_at_most_as_often_as_retry_allows(
    monkeypatch: pytest.MonkeyPatch, fault: Fault, way: str
) -> None:
    async with in_memory(fault, monkeypatch) as site:
        failure, text = await fail(fault, way, site, retry=Retry(attempts=3))
        assert_ours(failure, fault.error, fault.text)
        if way != "ask":
            assert text == fault.text
        assert sent(fault, site) == fault.attempts
        assert site.connections == fault.attempts  # no two attempts share a connection


@virtual
@pytest.mark.parametrize(
    "fault",  # the provider has a client for each reply
    [fault for fault in FAULTS if not fault.greets and fault.phase != "kept connection"],
    ids=str,
)
async def test_the_provider_alike(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    async with in_memory(fault, monkeypatch) as site:
        pieces: list[str] = []
        async with Client(site.url, timeouts=LIMITS) as client:
            with pytest.raises(GPROChatError) as caught:
                await receive_by(
                    "provider", client, prompt_of(fault), into=pieces, max_reply_size=10_000
                )
        assert_ours(caught.value, fault.error, fault.text)
        assert "".join(pieces) == fault.text
        assert sent(fault, site) == fault.attempts


@pytest.mark.parametrize(
    "fault",  # a kernel buffers more than a test should send
    [fault for fault in FAULTS + API_FAULTS if str(fault) != "send: trickle"],
    ids=str,
)
async def test_over_sockets(fault: Fault) -> None:
    """On every event loop. The deadline that has to expire is short, the others long."""
    short: dict[Phase, float] = {fault.clock: 0.1} if fault.clock else {}
    limits: Any = {"connect": 20.0, "first_chunk": 20.0, "idle": 20.0, "total": 20.0} | short
    script: Any = fault.script
    if isinstance(script, list):
        script = [Pause(0.01) if step == Pause(1) else step for step in script]
    async with AsyncExitStack() as stack:
        stack.enter_context(anyio.fail_after(20))
        made = deaf_site(script) if fault.greets else live_site(*replies(fault, script))
        site: ScriptedSite = await stack.enter_async_context(made)
        retry = Retry(attempts=1)
        failure, text = await fail(fault, "stream", site, timeouts=Timeouts(**limits), retry=retry)
        assert_ours(failure, fault.error, fault.text)
        assert text == fault.text
        if isinstance(failure, RequestTimeoutError):
            assert failure.phase == fault.clock
        assert sent(fault, site) == 1


async def test_no_listener() -> None:
    retry = Retry(attempts=1)
    for host in ("127.0.0.1", "[::1]", "localhost"):
        async with Client(f"http://{host}:{closed_port()}", retry=retry) as client:
            with pytest.raises(SiteConnectionError) as caught:
                await client.ask("hello")
        assert_ours(caught.value, SiteConnectionError)


@virtual
@pytest.mark.parametrize(
    "cause",
    [
        OSError("All connection attempts failed"),
        OSError(-2, "Name or service not known"),
        UnicodeError("label too long"),
        TimeoutError(110, "Connection timed out"),
    ],
    ids=lambda cause: type(cause).__name__,
)
@pytest.mark.parametrize("way", WAYS)
async def test_connecting_fails(
    monkeypatch: pytest.MonkeyPatch, way: str, cause: Exception
) -> None:
    tried = 0

    async def resolve(host: str, port: int) -> None:
        nonlocal tried
        tried += 1
        raise cause

    monkeypatch.setattr(_connecting, "resolve", resolve)
    async with Client("http://site.test") as client:
        with pytest.raises(SiteConnectionError) as caught:
            await receive_by(way, client)
        assert_ours(caught.value, SiteConnectionError)
    assert tried == 3


def test_the_table_is_complete() -> None:
    """Each phase has a stall, a trickle, a FIN, an RST, garbage, too much data, and invalid
    framing."""
    kinds = {"stall", "trickle", "FIN", "RST", "garbage", "oversize", "wrong framing"}
    for phase in {fault.phase for fault in FAULTS} - {"send"}:
        assert kinds <= {fault.kind for fault in FAULTS if fault.phase == phase}, phase
    assert kinds - {"wrong framing"} <= {f.kind for f in FAULTS if f.phase == "send"}
    for api in MODEL_APIS:
        for phase in ("first_chunk", "body"):
            there = {fault.kind for fault in API_FAULTS if (fault.api, fault.phase) == (api, phase)}
            assert kinds <= there, (api, phase)
