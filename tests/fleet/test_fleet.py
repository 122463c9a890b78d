"""Fleet on real event loops: arguments, errors, closing and events."""

from __future__ import annotations

import logging
import math
import traceback
from contextlib import AsyncExitStack, suppress
from typing import Any

import anyio
import httpx
import pytest
from support.fleets import FAILS, fleet_of, nothing_left
from support.prompted import closed

from gprochat_anyio import (
    Client,
    Fleet,
    GPROChatError,
    InvalidPromptError,
    Retry,
    SiteConnectionError,
    SiteError,
    fan_out,
    gather,
)
from gprochat_anyio._fleet.member import Member
from gprochat_anyio._request.chat_client import opener_of
from gprochat_anyio.testing import (
    Drop,
    Hang,
    Refuse,
    Reply,
    Say,
    live_site,
)


class TestArguments:
    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("clients", []),
            ("clients", ["https://a.example.org"]),
            ("clients", None),
            ("eject_after", 0),
            ("eject_after", True),
            ("eject_after", 1.5),
            ("eject_for", 0),
            ("eject_for", math.inf),
            ("eject_for", True),
            ("eject_for", None),
            ("hedge_after", 0),
            ("hedge_after", "1"),
        ],
    )
    def test_invalid(self, argument: str, value: Any) -> None:
        arguments: dict[str, Any] = {"clients": [Client("http://127.0.0.1:1")], argument: value}
        with pytest.raises(ValueError, match=rf"^{argument} "):
            Fleet(arguments.pop("clients"), **arguments)

    def test_a_client_twice_and_a_fleet(self) -> None:
        client = Client("http://127.0.0.1:1")
        with pytest.raises(ValueError, match=r"^clients must be different"):
            Fleet([client, client])
        with pytest.raises(ValueError, match=r"^clients must be"):
            Fleet([Fleet([client])])  # type: ignore[list-item]

    def test_repr_and_states(self) -> None:
        clients = [Client(f"https://{name}.example.org") for name in "ba"]
        fleet = Fleet(clients)
        assert fleet.clients == tuple(clients)
        assert fleet.url == "https://a.example.org https://b.example.org"
        assert repr(fleet) == "<Fleet of https://b.example.org, https://a.example.org>"
        assert (fleet.timeouts, fleet.retry) == (clients[0].timeouts, clients[0].retry)
        assert repr(Fleet.__new__(Fleet)) == "<Fleet of nothing>"

    async def test_room_for_a_consumer_at_each(self) -> None:
        clients = [Client("http://127.0.0.1:1"), Client("http://127.0.0.1:2", max_connections=1)]
        fleet: Any = Fleet(clients)
        async with fleet:
            with pytest.raises(ValueError, match="max_connections"):
                fan_out(fleet, ["hi"])


class TestAsking:
    async def test_the_client_that_answered(self) -> None:
        async with fleet_of(Refuse(500, "no"), "here") as (fleet, _):
            for _ in range(6):
                chunks = fleet.stream("hi")
                with pytest.raises(RuntimeError, match="async with"):
                    _ = chunks.client
                async with chunks:
                    assert await chunks.read() == "here"
                assert chunks.client is fleet.clients[1]

    async def test_stream_to(self) -> None:
        async with fleet_of(Refuse(500, "no"), "here") as (fleet, _):
            send, receive = anyio.create_memory_object_stream[str](10)
            with receive:
                assert (await fleet.stream_to("hi", send)).text == "here"
                assert receive.receive_nowait() == "here"

    async def test_an_invalid_prompt(self) -> None:
        async with fleet_of("a") as (fleet, sites):
            with pytest.raises(InvalidPromptError):
                async with fleet.stream(" "):
                    pytest.fail("it is blank")
            with pytest.raises(InvalidPromptError):
                await fleet.ask(" ")
            assert not sites[0].requests

    async def test_one_bare_error_with_a_note_for_each_other(self) -> None:
        async with fleet_of(*[Refuse(500, f"no {n}") for n in range(3)]) as (fleet, sites):
            with pytest.raises(SiteError) as caught:
                await fleet.ask("hi")
            assert len(caught.value.__notes__) == 2
            others = [site for site in sites if site.url not in str(caught.value)]
            for note in caught.value.__notes__:
                assert any(note.startswith(f"{site.url}: SiteError: ") for site in others)
            assert caught.value.__context__ is caught.value.__cause__ is None

    async def test_a_failure_after_the_first_text_does_not_move_on(self) -> None:
        broken = [Say("a"), Drop()]
        async with fleet_of(broken, broken) as (fleet, sites):
            with pytest.raises(GPROChatError):
                async with fleet.stream("hi") as chunks:
                    await chunks.read()
            assert sum(len(site.requests) for site in sites) == 1

    async def test_attempts_of_all_endpoints(self) -> None:
        async with fleet_of(Refuse(500, "no"), Refuse(500, "no"), "here") as (fleet, sites):
            timing = (await fleet.ask("hi")).timing
            assert timing.attempts == sum(len(site.requests) for site in sites)

    async def test_no_token_and_no_request_in_flight(self) -> None:
        async with fleet_of(Refuse(500, "no"), Refuse(500, "no")) as (fleet, sites):
            opener_of(fleet)._budget.tokens = 0
            with pytest.raises(SiteError) as caught:
                await fleet.ask("hi")
            assert caught.value.__notes__ == [
                "1 more were not tried: most requests to this Fleet are failing"
            ]
            assert sum(len(site.requests) for site in sites) == 1

    async def test_no_token_for_another_round(self) -> None:
        async with fleet_of(Refuse(503, "no"), Refuse(503, "no")) as (fleet, sites):
            opener_of(fleet)._budget.tokens = 1
            with pytest.raises(SiteError) as caught:
                await fleet.ask("hi")
            assert [len(site.requests) for site in sites] == [1, 1]
            (note,) = caught.value.__notes__
            assert "SiteError" in note

    async def test_another_round(self) -> None:
        replies: tuple[Reply, ...] = (Refuse(503, "no"), "here")
        async with fleet_of(replies, replies) as (fleet, _):
            assert (await fleet.ask("hi")).timing.attempts == 3

    async def test_a_stale_connection_is_replaced_without_a_token(self) -> None:
        replies: tuple[Reply, ...] = ("first", Drop(), "again")
        async with fleet_of(replies, Hang()) as (fleet, _sites):
            member = opener_of(fleet).roster.members[1]
            member.available_at = math.inf
            opener_of(fleet)._budget.tokens = 0
            assert (await fleet.ask("hi")).text == "first"
            opener_of(fleet)._budget.tokens = 0
            reply = await fleet.ask("hi")
            assert (reply.text, reply.timing.attempts) == ("again", 2)

    async def test_a_fleet_of_one_retries_as_its_client(self) -> None:
        replies: tuple[Reply, ...] = (Refuse(503, "no"), Refuse(503, "no"), "here")
        async with fleet_of(replies, hedge_after=0.01) as (fleet, _sites):
            assert (await fleet.ask("hi")).timing.attempts == 3

    async def test_a_closed_client_is_a_program_error(self) -> None:
        for hedge_after in (None, 5.0):
            async with fleet_of("a", "a", hedge_after=hedge_after) as (fleet, _):
                for client in fleet.clients:
                    await client.aclose()
                with pytest.raises(RuntimeError, match="this Client is closed"):
                    await fleet.ask("hi")
                assert [state.open_replies for state in fleet.states] == [0, 0]

    async def test_passwords(self) -> None:
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            open_site, locked = await enter(live_site()), await enter(live_site(password="pw"))
            async with Fleet([open_site.client(), locked.client()]) as fleet:
                assert await fleet.check_password()
            async with Fleet([open_site.client(), locked.client(password="no")]) as fleet:
                assert not await fleet.check_password()


class TestClosing:
    async def test_closes_its_clients(self) -> None:
        async with fleet_of("a", "a") as (fleet, sites):
            await gather(fleet, ["hi"] * 8)
            await fleet.aclose()
            for site in sites:
                await closed(site)
            with pytest.raises(RuntimeError, match="this Fleet is closed"):
                await fleet.ask("hi")
            with pytest.raises(RuntimeError, match="this Client is closed"):
                await fleet.clients[0].ask("hi")
            await fleet.aclose()

    async def test_the_others_if_one_fails(self) -> None:
        class Failing(httpx.AsyncBaseTransport):
            async def aclose(self) -> None:
                raise OSError("no")

        async with live_site("a") as site:
            first = Client("http://127.0.0.1:1", transport=Failing())
            fleet = Fleet([first, second := site.client()])
            await second.ask("hi")
            with pytest.raises(OSError, match="no"):
                await fleet.aclose()
            assert opener_of(second).closed
            await closed(site)

    def test_belongs_to_one_event_loop(self) -> None:
        fleet = Fleet([Client("http://127.0.0.1:1")])

        async def use() -> None:
            opener_of(fleet).check_usable()

        anyio.run(use)
        with pytest.raises(RuntimeError, match="this Fleet belongs to another event loop"):
            anyio.run(use)


async def test_events(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gprochat_anyio")
    secret = "S3CRET prompt"
    found: dict[str, Any] = {}
    async with fleet_of((FAILS, "back"), "here", eject_after=1, eject_for=0.01) as (fleet, sites):
        while fleet.states[0].error is None or fleet.states[0].state != "open":
            await fleet.ask(secret)
    async with fleet_of(Hang(), "here", hedge_after=0.01) as (fleet, hedged):
        silent = hedged[0].url.removeprefix("http://")
        while not any(
            record.__dict__["gprochat_event"] == "fleet.hedge"
            and record.__dict__["gprochat_after"] == silent
            for record in caplog.records
        ):
            await fleet.ask(secret)
    for record in caplog.records:
        if record.__dict__.get("gprochat_site") == silent:
            continue  # a slow machine also hedges from the other site
        found.setdefault(record.__dict__["gprochat_event"], record.__dict__)
    assert found.keys() == {"fleet.ejected", "fleet.failover", "fleet.recovered", "fleet.hedge"}
    hosts = [site.url.removeprefix("http://") for site in (*sites, *hedged)]
    ejected, failover = found["fleet.ejected"], found["fleet.failover"]
    assert (ejected["gprochat_site"], ejected["gprochat_error"]) == (hosts[0], "SiteError")
    assert (ejected["gprochat_seconds"], ejected["gprochat_status"]) == (0.01, 500)
    assert (failover["gprochat_after"], failover["gprochat_site"]) == (hosts[0], hosts[1])
    assert failover["gprochat_error"] == "SiteError"
    assert found["fleet.recovered"]["gprochat_site"] == hosts[0]
    assert found["fleet.recovered"]["gprochat_seconds"] >= 0.009  # uvloop counts milliseconds
    hedge = found["fleet.hedge"]
    assert (hedge["gprochat_after"], hedge["gprochat_site"]) == (hosts[2], hosts[3])
    assert "gprochat_error" not in hedge
    assert "S3CRET" not in caplog.text


@pytest.mark.parametrize("event", ["fleet.ejected", "fleet.recovered", "fleet.failover"])
async def test_a_log_that_fails_leaves_nothing_behind(event: str) -> None:
    def break_at(record: logging.LogRecord) -> bool:
        if record.__dict__["gprochat_event"] == event:
            raise LookupError("broken")
        return True

    logger = logging.getLogger("gprochat_anyio")
    logger.addFilter(break_at)
    logger.setLevel(logging.INFO)
    try:
        first = (FAILS, [Say("a"), Drop()], "back")
        async with fleet_of(first, "here", eject_after=1, eject_for=0.01) as (fleet, sites):
            while fleet.states[0].error is None or fleet.states[0].state != "open":
                with suppress(LookupError, GPROChatError):
                    await fleet.ask("hi")
            await nothing_left(fleet, sites)
    finally:
        logger.removeFilter(break_at)
        logger.setLevel(logging.NOTSET)


async def test_the_last_error_is_kept_without_its_traceback() -> None:
    async with fleet_of("a") as (fleet, _):
        member = opener_of(fleet).roster.members[0]
        assert isinstance(member, Member)
        assert fleet.states[0].error is None
        refused = SiteConnectionError("no")
        member.begin(0.0).failed(refused, 0.0, is_limited=False)
        assert fleet.states[0].error is not refused  # a copy, without a traceback
        assert str(fleet.states[0].error) == "no"


@pytest.mark.parametrize("hedge_after", [None, 0.001])
@pytest.mark.parametrize("reply", [FAILS, Drop(), [Say("a"), Drop()], Refuse(401, "key")])
async def test_no_secret_in_an_error(reply: Reply, hedge_after: float | None) -> None:
    secrets = {"secret_key": "canary-of-the-key", "password": "canary-of-the-password"}
    async with AsyncExitStack() as stack:
        sites = [await stack.enter_async_context(live_site(reply, strict=False)) for _ in "abc"]
        clients = [site.client(retry=Retry(backoff=0), **secrets) for site in sites]
        fleet = Fleet(clients, hedge_after=hedge_after)
        async with fleet:
            with pytest.raises(GPROChatError) as caught:
                await fleet.ask("canary-of-the-prompt")
            states = fleet.states
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    frames = [frame for frame in shown.stack if frame.filename != __file__]
    assert len(frames) > 2
    assert "canary" not in repr([frame.locals for frame in frames])
    assert "canary" not in "".join(shown.format_exception_only()) + repr(states)
