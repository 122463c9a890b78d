"""Scripts of sites in memory: the effect and time of each step."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Any

import anyio
import pytest
from support.loops import virtual
from support.retries import ONCE

from gprochat_anyio import (
    EmptyReplyError,
    GPROChatError,
    RateLimitError,
    ReplyInterruptedError,
    RequestTimeoutError,
    SiteConnectionError,
    SiteError,
    Timeouts,
    UnexpectedResponseError,
)
from gprochat_anyio.testing import (
    Drop,
    Fail,
    Hang,
    Pause,
    Raw,
    Refuse,
    Request,
    Say,
    Step,
    at_every_checkpoint,
    no_leaks,
    scripted_site,
)


@virtual
async def test_a_reply_follows_its_script() -> None:
    async with scripted_site([Say("Hel"), Pause(5), Say("lo")]) as site, site.client() as client:
        pieces: list[tuple[float, str]] = []
        began = anyio.current_time()
        async with client.stream("Hi") as chunks:
            async for chunk in chunks:
                pieces.append((round(anyio.current_time() - began, 6), chunk))  # noqa: PERF401
        assert pieces == [(0, "Hel"), (5, "lo")]
        assert (await client.ask("Hi")).text == "Hello"
        assert (site.connections, site.open_connections) == (1, 1)
    assert site.open_connections == 0


@virtual
async def test_time_passes_on_the_site_without_reads() -> None:
    script = [Pause(1), Say("a"), Pause(1), Say("b"), Pause(1), Say("c")]
    async with scripted_site(script) as site, site.client() as client:
        async with client.stream("Hi") as chunks:
            assert chunks.timing.first_chunk == pytest.approx(1)
            await chunks.receive()
            await anyio.sleep(1.5)
            before = anyio.current_time()
            assert await chunks.receive() == "b"
            assert anyio.current_time() == before
            assert await chunks.receive() == "c"
            assert anyio.current_time() - before == pytest.approx(0.5)


@virtual
async def test_an_hour_passes_immediately_and_deadlines_expire() -> None:
    async with scripted_site([Say("a"), Hang()], [Pause(3600), Say("b")]) as site:
        async with site.client(timeouts=Timeouts(idle=30, first_chunk=3599, total=None)) as client:
            with pytest.raises(RequestTimeoutError) as caught:
                await client.ask("Hi")
            assert (caught.value.phase, caught.value.partial_text) == ("idle", "a")
            with pytest.raises(RequestTimeoutError) as caught:
                await client.ask("Hi")
            assert caught.value.phase == "first_chunk"
            assert (await client.ask("Hi", timeouts=Timeouts(first_chunk=None))).text == "b"
        assert [r.outcome for r in site.requests] == ["left", "left", "complete"]


@virtual
async def test_a_pause_continues_when_a_read_is_cancelled() -> None:
    async with scripted_site([Say("a"), Pause(5), Say("b")]) as site, site.client() as client:
        async with client.stream("Hi") as chunks:
            await chunks.receive()
            began = anyio.current_time()
            with anyio.move_on_after(3):
                await chunks.receive()
            assert await chunks.receive() == "b"
            assert anyio.current_time() - began == pytest.approx(5)


@virtual
async def test_connecting_takes_time() -> None:
    async with scripted_site("a", connect_after=5) as site:
        async with site.client(timeouts=Timeouts(connect=4), retry=ONCE) as client:
            with pytest.raises(RequestTimeoutError) as caught:
                await client.ask("Hi")
            assert caught.value.phase == "connect"
        async with site.client() as client:
            assert (await client.ask("Hi")).timing.connect == pytest.approx(5)


@virtual
async def test_refusals() -> None:
    async with scripted_site(
        Refuse(429, "slow down", retry_after=7), [Pause(2), Refuse(500, "no", code="E")], "a"
    ) as site:
        async with site.client(retry=ONCE) as client:
            with pytest.raises(RateLimitError) as limited:
                await client.ask("Hi")
            assert (limited.value.retry_after, limited.value.site_message) == (7, "slow down")
            with pytest.raises(SiteError) as refused:
                await client.ask("Hi")
            assert (refused.value.status, refused.value.code) == (500, "E")
            assert (await client.ask("Hi")).text == "a"
        assert site.connections == 1  # the connection of an error is reused
        assert [r.outcome for r in site.requests] == ["refused", "refused", "complete"]


@virtual
async def test_the_client_retries() -> None:
    async with scripted_site(Refuse(503, retry_after=7), Drop(), "a") as site:
        async with site.client() as client:
            reply = await client.ask("Hi")
        assert (reply.text, reply.timing.attempts) == ("a", 3)
        assert site.requests[1].time - site.requests[0].time >= 7
        assert [r.outcome for r in site.requests] == ["refused", "dropped", "complete"]


@pytest.mark.parametrize("reset", [False, True])
async def test_a_drop_after_text(reset: bool) -> None:
    async with scripted_site([Say("one"), Say("two"), Drop(reset=reset)]) as site:
        async with site.client() as client, client.stream("Hi") as chunks:
            pieces = []
            with pytest.raises(ReplyInterruptedError, match="broke" if reset else "closed"):
                async for piece in chunks:
                    pieces.append(piece)  # noqa: PERF401
            assert pieces == ["one", "two"]
    assert site.requests[0].outcome == "dropped"


async def test_a_drop_instead_of_a_response() -> None:
    async with scripted_site(Drop(reset=True)) as site, site.client(retry=ONCE) as client:
        with pytest.raises(SiteConnectionError):
            await client.ask("Hi")


async def test_a_drop_after_the_head() -> None:
    async with scripted_site([Say(""), Drop()]) as site, site.client(retry=ONCE) as client:
        with pytest.raises(ReplyInterruptedError):
            await client.ask("Hi")


async def test_the_model_fails() -> None:
    async with scripted_site(Fail("boom"), [Say("a"), Fail()]) as site:
        async with site.client(retry=ONCE) as client:
            with pytest.raises(SiteError, match="boom") as early:
                await client.ask("Hi")
            assert (early.value.status, early.value.code) == (500, "Error")
            with pytest.raises(ReplyInterruptedError) as late:
                await client.ask("Hi")
            assert late.value.partial_text == "a"
        assert [r.outcome for r in site.requests] == ["failed", "failed"]


async def test_raw_bytes() -> None:
    html = b"<html>"
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n" + html
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with scripted_site(
        Raw(page), [Raw(b"nonsense\r\n\r\n"), Drop()], [Raw(head), Say("a"), Raw(b"0\r\n\r\n")]
    ) as site:
        async with site.client(retry=ONCE) as client:
            with pytest.raises(UnexpectedResponseError, match="text/html"):
                await client.ask("Hi")
            with pytest.raises(GPROChatError):
                await client.ask("Hi")
            assert (await client.ask("Hi")).text == "a"


async def test_split_characters_and_empty_texts() -> None:
    data = "é".encode()
    async with scripted_site([Say(""), Say(data[:1]), Say(data[1:])], [], Say(""), "") as site:
        async with site.client(retry=ONCE) as client:
            assert (await client.ask("Hi")).text == "é"
            for _ in range(4):
                with pytest.raises(EmptyReplyError):
                    await client.ask("Hi")
    async with scripted_site() as site, site.client(retry=ONCE) as client:
        with pytest.raises(EmptyReplyError):
            await client.ask("Hi")


async def test_a_callable_delays_the_script() -> None:
    more = anyio.Event()
    async with scripted_site([Say("a"), more.wait, Say("b")]) as site, site.client() as client:
        async with client.stream("Hi") as chunks:
            assert await chunks.receive() == "a"
            with anyio.CancelScope() as scope:
                scope.cancel()
                await chunks.receive()
            more.set()
            assert await chunks.read() == "b"


async def test_a_function_of_the_request() -> None:
    def shout(request: Request) -> Iterator[Step] | str:
        if request.number:
            return request.prompt.upper()
        return iter([Say(word) for word in request.prompt.split()])

    async with scripted_site(shout) as site, site.client() as client:
        async with client.stream("one two") as chunks:
            assert [chunk async for chunk in chunks] == ["one", "two"]
        assert (await client.ask("Hi")).text == "HI"


async def test_a_functions_exception_reaches_the_caller() -> None:
    def broken(request: Request) -> str:
        raise ZeroDivisionError(request.prompt)

    async with scripted_site(broken) as site, site.client() as client:
        with pytest.raises(ZeroDivisionError, match="Hi"):
            await client.ask("Hi")
        assert site.open_connections == 0


@pytest.mark.parametrize("said", [0, 1], ids=["before the text", "behind it"])
async def test_a_scripts_exception_reaches_the_waiting_task(said: int) -> None:
    own = ZeroDivisionError("own")

    def broken(_: Request) -> Iterator[Step]:
        yield from (Say("text") for _number in range(said))
        raise own

    async with scripted_site(broken) as site, site.client() as client:
        chunks = client.stream("Hi")
        with pytest.raises(ZeroDivisionError) as caught:
            async with chunks:
                assert await chunks.receive() == "text"
                await chunks.receive()
        assert caught.value is own
        assert chunks.text == "text" * said
        with pytest.raises(ZeroDivisionError):
            await client.ask("Hi")
        assert site.open_connections == 0


async def test_an_endless_reply_is_generated_on_demand() -> None:
    said = 0

    def endless(request: Request) -> Iterator[Step]:
        nonlocal said
        for step in repeat(Say("x" * 1000)):
            said += 1
            yield step

    async with scripted_site(endless) as site, site.client() as client:
        async with client.stream("Hi") as chunks:
            for _ in range(10):
                await chunks.receive()
        assert said <= 12
        assert site.requests[0].outcome == "left"


@virtual
async def test_cancellation_anywhere_leaves_nothing() -> None:
    async with scripted_site([Pause(1), Say("a"), Pause(1), Say("b")], connect_after=1) as site:
        async with site.client(max_connections=1) as client:
            for cancel in at_every_checkpoint(twice=True):
                async with no_leaks(client):
                    await cancel(lambda: client.ask("Hi"))
                assert (await client.ask("Hi")).text == "ab", cancel
        assert site.open_connections == 0


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Say(7), "Say requires"),  # type: ignore[arg-type]
        (lambda: Raw("a"), "Raw requires"),  # type: ignore[arg-type]
        (lambda: Pause(-1), "Pause requires"),
        (lambda: Pause(float("inf")), "Hang"),
        (lambda: Pause("1"), "Pause requires"),  # type: ignore[arg-type]
        (lambda: Refuse(200), "status of an error"),
        (lambda: Refuse("429"), "status of an error"),  # type: ignore[arg-type]
        (lambda: Refuse(429, retry_after=float("nan")), "finite"),
        (lambda: scripted_site(7), "a script must be a str"),  # type: ignore[arg-type]
        (lambda: scripted_site(iter([Say("a")])), "replayed"),
        (lambda: scripted_site(["a"]), "step 1 of a script is a str"),  # type: ignore[list-item]
        (lambda: scripted_site([Say("a"), Refuse(500)]), "cannot follow"),
        (lambda: scripted_site([Drop(), Say("a")]), "Drop ends a script"),
        (lambda: scripted_site("a", url="nowhere"), "url must be"),
    ],
)
def test_invalid_scripts(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
