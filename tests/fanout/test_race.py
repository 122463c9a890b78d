"""race: starts, the winner, and the cancellation of the others."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest
from support.loops import virtual
from support.prompted import closed, pool_of, prompted
from support.retries import ONCE

from gprochat_anyio import (
    Client,
    InvalidPromptError,
    ReplyInterruptedError,
    ReplyStream,
    RequestTimeoutError,
    SiteError,
    Timeouts,
    race,
)
from gprochat_anyio._request.endpoint import Endpoint
from gprochat_anyio.testing import (
    Drop,
    Hang,
    Injection,
    Pause,
    Refuse,
    Reply,
    Say,
    Script,
    ScriptedSite,
    cancelled,
    injections,
    live_site,
    scripted_site,
)

SILENT = Hang()
HEAD_ONLY = [Say(""), Hang()]
ONE_TEXT = [Say("one"), Hang()]


@asynccontextmanager
async def clients_of(*replies: Reply) -> AsyncIterator[tuple[list[Client], list[ScriptedSite]]]:
    """Serve each reply by a site of its own. Yield the clients and the sites."""
    with anyio.fail_after(20):
        async with AsyncExitStack() as stack:
            sites = [await stack.enter_async_context(live_site(reply)) for reply in replies]
            clients = [await stack.enter_async_context(site.client(retry=ONCE)) for site in sites]
            yield clients, sites


class TestWinning:
    @pytest.mark.parametrize("loser", [SILENT, HEAD_ONLY])
    async def test_the_first_text_wins(self, loser: Reply) -> None:
        more = anyio.Event()
        winner: Script = [Say("one"), more.wait, Say("two")]
        async with clients_of(loser, winner, loser) as (clients, sites):
            async with race(clients, "hi") as chunks:
                assert isinstance(chunks, ReplyStream)
                assert chunks.client is clients[1]
                assert chunks.winner == 1
                for site in (sites[0], sites[2]):  # closed before the block begins
                    await closed(site)
                assert await chunks.receive() == "one"
                more.set()
                assert await chunks.read() == "two"
            assert chunks.text == "onetwo"
            assert chunks.timing.characters == 6
            assert chunks.client is clients[1]

    @pytest.mark.slow
    async def test_several_first_texts_in_the_same_moment(self) -> None:
        for _ in range(20):
            async with clients_of(*["a"] * 5) as (clients, sites):
                async with race(clients, "hi") as chunks:
                    assert await chunks.read() == "a"
                for client in clients:
                    await client.aclose()
                for site in sites:
                    await closed(site)

    async def test_two_that_are_there_before_one_can_be_cancelled(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        both, opened = anyio.Event(), 0
        real_open = Endpoint.open

        async def wait_for_both(self: Endpoint, *args: Any, **kwargs: Any) -> Any:
            nonlocal opened
            reply = await real_open(self, *args, **kwargs)
            opened += 1
            if opened == 2:
                both.set()
            else:
                await both.wait()
            return reply

        monkeypatch.setattr(Endpoint, "open", wait_for_both)
        async with clients_of(ONE_TEXT, ONE_TEXT) as (clients, sites):
            async with race(clients, "hi") as chunks:
                await closed(sites[1 - chunks.winner])
                assert sites[chunks.winner].open_connections

    async def test_a_failure_after_the_first_text_is_raised(self) -> None:
        async with clients_of([Say("one"), Drop()], SILENT) as (clients, sites):
            async with race(clients, "hi") as chunks:
                with pytest.raises(ReplyInterruptedError):
                    await chunks.read()
            assert chunks.text == "one"
            await closed(sites[1])

    async def test_one_client_is_asked_twice(self) -> None:
        async with prompted(HEAD_ONLY, "second", retry=ONCE) as (client, site):
            async with race(client, "hi", hedge_after=0.01) as chunks:
                assert await chunks.read() == "second"
                assert chunks.winner == 1
            assert len(site.requests) == 2

    async def test_leaving_closes_the_winner(self) -> None:
        async with clients_of(ONE_TEXT) as (clients, sites):
            async with race(clients, "hi"):
                pass
            await closed(sites[0])


class TestFailing:
    async def test_all_of_them(self) -> None:
        async with clients_of(Refuse(400, "first"), Refuse(404, "second")) as (clients, _):
            with pytest.raises(SiteError, match="second") as caught:
                async with race(clients, "hi", hedge_after=100):
                    pytest.fail("a request received text")
            assert caught.value.status == 404
            (note,) = caught.value.__notes__
            assert note.startswith("Client 0 of the race: SiteError: ")
            assert "first" in note
            assert caught.value.__context__ is None
            assert caught.value.__cause__ is None

    async def test_of_the_program(self) -> None:
        async with clients_of(SILENT, "a") as (clients, sites):
            await clients[1].aclose()
            with pytest.raises(RuntimeError, match="this Client is closed"):
                async with race(clients, "hi"):
                    pytest.fail("one of them is closed")
            await closed(sites[0])

    async def test_an_invalid_prompt_is_not_sent(self) -> None:
        async with clients_of("a") as (clients, sites):
            chunks = race(clients, " ")
            with pytest.raises(InvalidPromptError):
                async with chunks:
                    pytest.fail("it is blank")
            assert not sites[0].requests

    async def test_no_winner_before_the_block(self) -> None:
        async with clients_of("a") as (clients, _):
            chunks = race(clients, "hi")
            with pytest.raises(RuntimeError, match="async with"):
                _ = chunks.client
            async with chunks:
                pass
            with pytest.raises(RuntimeError, match="entered once"):
                async with chunks:
                    pass

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("clients", []),
            ("clients", ["https://chat.example.org"]),
            ("clients", None),
            ("hedge_after", -1),
            ("hedge_after", None),
            ("hedge_after", True),
            ("hedge_after", math.nan),
            ("hedge_after", math.inf),
            ("timeouts", 30),
        ],
    )
    async def test_bad_arguments(self, argument: str, value: Any) -> None:
        async with Client("http://127.0.0.1:1") as client:
            arguments: dict[str, Any] = {"clients": client, "prompt": "hi", argument: value}
            with pytest.raises(ValueError, match=rf"^{argument} "):
                race(**arguments)


@virtual
class TestStarts:
    """Start times of the requests, in virtual time, with one site in memory."""

    @staticmethod
    @asynccontextmanager
    async def site_of(*replies: Reply) -> AsyncIterator[tuple[Client, Callable[[], list[float]]]]:
        async with scripted_site(*replies) as site, site.client(retry=ONCE) as client:
            began = anyio.current_time()
            yield client, lambda: [request.time - began for request in site.requests]

    async def test_hedging(self) -> None:
        third = [Pause(1), Say("third")]
        async with self.site_of(SILENT, SILENT, third, SILENT) as (client, times):
            async with race([client] * 4, "hi", hedge_after=2.0) as chunks:
                assert await chunks.read() == "third"
            assert times() == pytest.approx([0, 2, 4])
            assert chunks.winner == 2
            assert chunks.timing.total == pytest.approx(1)

    async def test_no_second_start_if_the_first_is_fast(self) -> None:
        async with self.site_of([Pause(1.9), Say("a")]) as (client, times):
            async with race(client, "hi", hedge_after=2.0) as chunks:
                assert await chunks.read() == "a"
            assert times() == [0]

    async def test_a_failure_starts_the_next_at_once(self) -> None:
        failing = [Pause(0.5), Refuse(400, "no")]
        third = [Pause(5), Say("third")]
        async with self.site_of(failing, failing, third, SILENT) as (client, times):
            async with race([client] * 4, "hi", hedge_after=2.0) as chunks:
                assert await chunks.read() == "third"
            assert times() == pytest.approx([0, 0.5, 1.0, 3.0])

    async def test_each_failure_starts_one(self) -> None:
        failing = [[Pause(seconds), Refuse(400, "no")] for seconds in (5, 3)]
        third = [Pause(9), Say("third")]
        async with self.site_of(*failing, third, SILENT) as (client, times):
            async with race([client] * 5, "hi", hedge_after=2.0) as chunks:
                assert await chunks.read() == "third"
            assert times() == pytest.approx([0, 2, 4, 5, 5])

    async def test_all_at_once(self) -> None:
        async with self.site_of([Pause(1), Say("a")]) as (client, times):
            async with race([client] * 3, "hi"):
                pass
            assert times() == [0, 0, 0]

    async def test_clocks_of_each(self) -> None:
        async with self.site_of(SILENT) as (client, times):
            with pytest.raises(RequestTimeoutError) as caught:
                async with race(client, "hi", hedge_after=2.0, timeouts=Timeouts(first_chunk=3)):
                    pytest.fail("a request received text")
            assert caught.value.elapsed == pytest.approx(3)
            assert anyio.current_time() - times()[1] == pytest.approx(3, abs=5)


@pytest.mark.usefixtures("no_garbage_collector")
@pytest.mark.parametrize("script", [SILENT, ONE_TEXT])
async def test_cancelled_at_every_suspension(script: Reply) -> None:
    async with clients_of(script, HEAD_ONLY) as (clients, sites):

        async def run() -> None:
            with anyio.move_on_after(0.02):
                async with race(clients, "hi", hedge_after=0.005) as chunks:
                    await chunks.read()

        most = 0
        for moment, native in injections():
            end, at = "", 0
            while end != "not reached":
                at += 1
                end = await cancelled(Injection(at, moment, native), run)
                for client in clients:
                    slots, _, waiting = pool_of(client).statistics()
                    assert (slots, waiting) == (1000, 0)
                for site in sites:
                    await closed(site)
            most = max(most, at)
        assert most > 2  # on a busy machine, the deadline may pass earlier in some runs
